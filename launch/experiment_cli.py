"""The command `dynalign experiment`: arguments and help. It imports what it needs when it is called."""

from typing import Any

import click

PAPER = "paper"
"""The experiment that is no comparison of arms."""


@click.command()
@click.argument("experiment", metavar="NAME")
@click.argument("config", required=False)
@click.argument("settings", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--small", is_flag=True, help="Fewer arms and steps, for two CPU cores and a small model.")
@click.option("--seeds", type=int, default=3, show_default=True, help="Runs of each arm.")
@click.option("--margin", type=float, default=0.25, show_default=True, help="Points: the loss that is none.")
@click.option("--see", type=float, metavar="POINTS", help="Refuse a plan that cannot see this (default: 5).")
@click.option("--measured", metavar="FOLDER", help="An ended experiment, whose variances the plan takes.")
@click.option("--at-once", type=click.IntRange(min=1), help="Most runs at one time (default: what has room).")
@click.option("--keep-checkpoints", is_flag=True, help="Keep those of finished runs, which are removed.")
@click.option("--plan", is_flag=True, help="Check every arm and print the plan; start nothing.")
@click.option("--out", metavar="FOLDER", help="Its folder (default: runs/CONFIG-NAME).")
def experiment(**options: Any) -> int:
    """Answer a question about the method by runs of its arms.

    NAME: group-size, staleness, internalization, judge, rubric, transfer, architecture, or paper, the whole
    way from prompts to evaluation. CONFIG and KEY=VALUE are as for `train`, and hold for every arm; arms=A,B
    chooses arms, models=A,B the models of `architecture`, foreign=SOURCE the prompts of `transfer`,
    judged_by=MODEL who judges all arms. Killed anywhere, the same command goes on.
    """
    from dynalign.launch.commands.experiment_options import ExperimentOptions, with_config

    wanted = with_config(ExperimentOptions(**options))
    if wanted.experiment == PAPER:
        from dynalign.launch.commands.experiment_paper import experiment_paper

        return experiment_paper(wanted)
    from dynalign.launch.commands.experiment import experiment as run

    return run(wanted)
