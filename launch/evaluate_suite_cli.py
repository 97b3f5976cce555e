"""The commands `dynalign evaluate suite` and `quick`: arguments and help."""

from typing import Any

import click

from dynalign.launch.command_group import runs_option

engine_option = click.option(
    "--engine",
    multiple=True,
    metavar="KEY=VALUE",
    help="A setting of our own engines, such as dtype=float32.",
)
out_option = click.option("--out", help="Folder of table and answers (default: beside the run folder).")


@click.command()
@click.argument("suite")
@click.argument("run", required=False)
@click.option(
    "--model", help="A model in the place of RUN: folder, fetched name, hub id, or endpoint YAML file."
)
@click.option("--against", help="The model to compare with (default: the one that RUN began from).")
@click.option("--task", "only", multiple=True, help="Ask this task in the place of the suite's.")
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="TASK.KEY=VALUE",
    help="Change a task: repeats, margin (points) or max_tokens.",
)
@click.option("--data", help="Folder with the items: TASK.jsonl, .json, .csv or .parquet (default: the hub).")
@click.option(
    "--limit", type=click.IntRange(min=1), default=1000, show_default=True, help="Most items of a task."
)
@click.option(
    "--temperature",
    type=click.FloatRange(0.0, 2.0),
    default=0.6,
    show_default=True,
    help="Of repeated answers; single answers are the most likely ones.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0, max=2**31 - 1),
    default=0,
    show_default=True,
    help="Of repeated answers.",
)
@click.option(
    "--thinking",
    "thinking_tokens",
    type=click.IntRange(min=0),
    default=0,
    metavar="TOKENS",
    help="The models think: tokens for it, besides those of the task.",
)
@engine_option
@out_option
@runs_option
def suite(**options: Any) -> int:
    """Ask SUITE (quick, paper, safety) of a trained model, and test whether it has lost anything.

    Capabilities and safety by the tasks and verdicts of lm-evaluation-harness.
    """
    from dynalign.launch.commands.evaluate_suite import SuiteOptions, evaluate_suite

    return evaluate_suite(SuiteOptions(**options))


@click.command()
@click.argument("run")
@engine_option
@out_option
@runs_option
def quick(**options: Any) -> int:
    """Ask RUN's model the suite `quick`, which comes with dynalign: minutes on two cores."""
    from dynalign.launch.commands.evaluate_suite import SuiteOptions, evaluate_suite

    return evaluate_suite(SuiteOptions("quick", **options))
