"""`python -m dynalign.benchmarks.gpu_check --out FOLDER [--minutes 9] [--device gpu|cpu] [--only STAGE,…]`.

Exit codes: 0 every stage passed, or cannot run on this machine; 1 one failed, was ended at its deadline, or
had no time; 2 wrong arguments; 130 interrupted. Results are in FOLDER/results.jsonl whatever happens.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click

from dynalign.benchmarks.command_line import run_command_line
from dynalign.benchmarks.gpu_check.origin import this_origin
from dynalign.benchmarks.gpu_check.outcomes import StageOutcome
from dynalign.benchmarks.gpu_check.runner import Check
from dynalign.benchmarks.gpu_check.stages import chosen_stages
from dynalign.benchmarks.gpu_check.table import table_lines
from dynalign.benchmarks.workload import Device
from dynalign.configs.errors import Mistake, UserError

_ENDING_S = 15.0
"""Kept for the last stage's processes to end and for the table."""


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the results.")
@click.option(
    "--minutes", type=click.FloatRange(min=0.0, min_open=True), default=9.0, help="Time for this call; 9."
)
@click.option(
    "--device", type=click.Choice(["gpu", "cpu"]), default="gpu", help="cpu: a dry run with tiny shapes."
)
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    help="Folder of a small trained model, for the stage mismatch.",
)
@click.option(
    "--scratch", type=click.Path(path_type=Path), help="Folder of models and runs, up to 70 GB; OUT/scratch."
)
@click.option("--only", metavar="STAGE,…", help="Run these stages alone.")
def gpu_check(
    out: Path, minutes: float, device: Device, model: Path | None, scratch: Path | None, only: str | None
) -> int:
    """Prove and measure on one GPU what no other machine can show, within the given minutes.

    A second call with the same folder goes on behind the stages that have passed."""
    until_s = time.time() + 60 * minutes - _ENDING_S
    stages = chosen_stages(only)
    origin = this_origin(device)
    mistakes = []
    if device == "gpu" and not origin.card:
        mistakes.append(Mistake("--device", device, "nvidia-smi shows no GPU", "for a dry run: --device cpu"))
    if out.exists() and not out.is_dir():
        mistakes.append(Mistake("--out", str(out), "is no folder", "name a folder; it is made"))
    if model is not None and not (model / "config.json").is_file():
        mistakes.append(Mistake("--model", str(model), "holds no config.json", "name a model's folder"))
    if mistakes:
        raise UserError(mistakes)
    out = out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    folder = (scratch or out / "scratch").absolute()
    real = None if model is None else model.absolute()
    check = Check(out, folder, real, origin, until_s, tell=lambda line: click.echo(line, err=True))
    outcomes = check.run(stages)
    click.echo("\n".join(table_lines(outcomes, origin)))
    return exit_code(outcomes)


def exit_code(outcomes: Sequence[StageOutcome]) -> int:
    """0 where every stage passed, or was started and found that this machine cannot do it."""
    short = [
        outcome
        for outcome in outcomes
        if outcome.status in ("failed", "deadline") or (outcome.status == "skipped" and not outcome.seconds)
    ]
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(run_command_line(gpu_check, "gpu_check"))
