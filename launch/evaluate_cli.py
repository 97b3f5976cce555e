"""The commands `dynalign evaluate …`: arguments and help. Each imports what it needs when it is called."""

from typing import Any

import click

from dynalign.launch.command_group import Commands, runs_option
from dynalign.launch.evaluate_suite_cli import quick, suite


@click.group(cls=Commands)
def evaluate() -> None:
    """Compare a trained model with others."""


@evaluate.command()
@click.argument("run", required=False)
@click.option(
    "--model", metavar="MODEL", help="Instead of a run: a folder, a fetched name, a hub id, FILE.yaml."
)
@click.option(
    "--against", metavar="MODEL", help="The other model (default: the one that the run began from)."
)
@click.option("--judge", "judges", multiple=True, metavar="MODEL", help="Who judges; several may be given.")
@click.option(
    "--prompts", multiple=True, metavar="SOURCE", help="Prompts (default: the run's held-out ones)."
)
@click.option(
    "--limit", type=click.IntRange(min=1), default=100, show_default=True, help="Prompts per source."
)
@click.option(
    "--criterion",
    type=click.Choice(["value", "general"]),
    default="value",
    show_default=True,
    help="Whether judges are asked which answer serves the value more, or which helps more.",
)
@click.option("--values", metavar="FOLDER", help="Texts of another value (default: the run's).")
@click.option("--prompted", is_flag=True, help="Give the model under test the value's system prompt.")
@click.option("--internalization", is_flag=True, help="Ask both models with and without that prompt.")
@click.option("--aspects", is_flag=True, help="Also score answers by each aspect and as a whole.")
@click.option("--external", metavar="PATH", help="Also score HumanAgencyBench's rows (.csv, .jsonl, folder).")
@click.option(
    "--scorer",
    type=click.Choice(["sampled", "expected"]),
    default="sampled",
    show_default=True,
    help="How these scores are made.",
)
@click.option(
    "--max-tokens", type=click.IntRange(min=1), default=512, show_default=True, help="Of an answer, at most."
)
@click.option(
    "--judge-tokens",
    type=click.IntRange(min=32),
    default=256,
    show_default=True,
    help="Of a verdict, at most.",
)
@click.option(
    "--temperature", type=click.FloatRange(0, 2), default=1.0, show_default=True, help="Of the answers."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of everything drawn.")
@click.option("--engine", multiple=True, metavar="KEY=VALUE", help="Of our own engines, as in judge.pool.")
@click.option("--out", metavar="FOLDER", help="Folder of the card (default: runs/NAME-evaluation).")
@runs_option
def pairwise(**options: Any) -> int:
    """Compare two models by judges, in both orders.

    RUN or --model is tested. A MODEL is a folder, a fetched name, a hub id, or a YAML file with an endpoint's
    address and model. Run again, the command goes on where it was.
    """
    from dynalign.launch.commands.evaluate_pairwise import PairwiseOptions, evaluate_pairwise

    return evaluate_pairwise(PairwiseOptions(**options))


evaluate.add_command(suite)
evaluate.add_command(quick)
