"""`python -m dynalign.benchmarks.chaos --kills 12 --seed 3 --model FOLDER`: strike a run, then audit it.

    a Ray cluster of two nodes on this machine ─► `dynalign train` ─► strikes by the plan of the seed
    ─► `dynalign stop` ─► the run is trained to its end ─► audit of the run folder ─► account

Exit codes: 0 every issued group was trained once or withheld for a good reason; 1 one was lost or doubled, or
the run did not recover; 2 wrong arguments. After a failure the run folder, its log and Ray's logs are kept.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import click

from dynalign.benchmarks.chaos.audit import audit, mirror_mistakes
from dynalign.benchmarks.chaos.plan import StormPlan, storm_plan
from dynalign.benchmarks.chaos.real_run import HOLDS_JUDGE, MAX_STALENESS, POISON_PROMPT, JudgeEngine, RealRun
from dynalign.benchmarks.chaos.storm import account, carry_out, finish
from dynalign.configs.errors import DynalignError


@click.command()
@click.option("--kills", type=click.IntRange(1, 10_000), default=50, show_default=True)
@click.option("--seed", type=int, default=7, show_default=True)
@click.option(
    "--model", type=click.Path(exists=True, path_type=Path), required=True, help="A folder with a tokenizer."
)
@click.option(
    "--judge-engine",
    type=click.Choice(["deterministic", "vllm"]),
    default="deterministic",
    show_default=True,
    help="What holds the initial policy, which vetoes scores and is struck like everything else.",
)
@click.option("--keep", type=click.Path(path_type=Path), help="Copy the run folder here, whatever happens.")
def chaos(kills: int, seed: int, model: Path, judge_engine: JudgeEngine, keep: Path | None) -> int:
    """Strike everything in a long run, and show that nothing is lost."""
    # Not in the current folder: Ray's sockets need a short path.
    scratch = Path(tempfile.mkdtemp(prefix="chaos-"))
    plan = storm_plan(kills, seed)
    mirror = "a" if plan.mirror else "no"
    click.echo(
        f"seed {seed}: {plan.kills} kills, {plan.ranks} learner ranks, {mirror} mirror, "
        f"vetoes on {judge_engine}; folders in {scratch}"
    )
    run = RealRun(scratch, tiny(model, scratch / "model"), plan, judge_engine)
    try:
        well = strike_and_audit(run, plan)
    except (DynalignError, OSError, ValueError, subprocess.SubprocessError) as error:
        click.echo(f"FAILED: {error}")
        well = False
    finally:
        if keep is not None and run.folder.exists():
            shutil.copytree(run.folder, keep, dirs_exist_ok=True)
    if not well:
        click.echo(f"kept: the run {run.folder}, its log {run.log}, and Ray's logs in {scratch / 'ray'}")
        return 1
    shutil.rmtree(scratch, ignore_errors=True)
    return 0


def strike_and_audit(run: RealRun, plan: StormPlan) -> bool:
    """The storm, the end of the run, and the account; whether nothing is wrong."""
    with run.started():
        recoveries = carry_out(run, plan, click.echo)
        finish(run)
    struck = {strike.victim for round_ in plan.rounds for strike in round_.strikes}
    judge_struck = bool(struck & HOLDS_JUDGE)
    found = audit(run.folder, MAX_STALENESS, [POISON_PROMPT], judge_struck)
    lost = [] if run.mirror is None else mirror_mistakes(run.mirror, found.steps)
    click.echo("\n".join([*account(recoveries, found), *(f"WRONG: {mistake}" for mistake in lost)]))
    return not found.mistakes and not lost


def tiny(model: Path, folder: Path) -> Path:
    """A random model with the tokenizer and the architecture of `model`: two layers of 64 units."""
    import transformers

    config = transformers.AutoConfig.from_pretrained(model)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32}
    config.update(sizes | heads)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)  # type: ignore[no-untyped-call]
    transformers.AutoTokenizer.from_pretrained(model).save_pretrained(folder)
    return folder


if __name__ == "__main__":
    sys.exit(chaos.main(standalone_mode=False))
