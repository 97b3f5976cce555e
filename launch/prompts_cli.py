"""The commands `dynalign prompts …`, as click parses them."""

from collections.abc import Sequence

import click

from dynalign.launch.command_group import Commands, runs_option


@click.group(cls=Commands)
def prompts() -> None:
    """Make prompts to train on, and measure them."""


@prompts.command("make")
@click.option("--count", type=int, help="Prompts wanted (default: 1000).")
@click.option("--out", required=True, metavar="FOLDER", help="Folder of the set; one that is there goes on.")
@click.option("--kind", metavar="KIND", help="task (default), or dilemma: conflicts with two personas each.")
@click.option("--local", metavar="MODEL", help="A model on engines of our own, instead of an endpoint.")
@click.argument("settings", nargs=-1, metavar="[CONFIG] [KEY=VALUE]...")
def make_prompts(
    count: int | None, out: str, kind: str | None, local: str | None, settings: Sequence[str]
) -> int:
    """Have a model write prompts for a value: goals, writer, critic, refinement.

    CONFIG is a YAML file. KEY=VALUE sets one of its settings, such as endpoint.address=http://host:8000/v1
    endpoint.model=NAME, or judge.values=FOLDER for a value of your own.
    """
    from dynalign.launch.commands.prompts_make import prompts_make

    config = settings[0] if settings and "=" not in settings[0] else None
    given = [*settings[0 if config is None else 1 :]]
    given += [] if count is None else [f"count={count}"]
    given += [] if kind is None else [f"kind={kind}"]
    return prompts_make(config, given, out, local)


@prompts.command("refresh")
@click.argument("run")
@runs_option
@click.option("--count", type=int, help="New prompts (default: as many as are saturated).")
@click.option("--local", metavar="MODEL", help="A model on engines of our own, instead of an endpoint.")
@click.argument("settings", nargs=-1, metavar="[KEY=VALUE]...")
def refresh_prompts(
    run: str, runs: str, count: int | None, local: str | None, settings: Sequence[str]
) -> int:
    """New prompts where the groups of a run still separate, for saturated ones.

    RUN is the name or folder of a run, going on or not. KEY=VALUE is as for `prompts make`; the settings of
    the set that the run trains on hold otherwise.
    """
    from dynalign.launch.commands.prompts_refresh import prompts_refresh

    return prompts_refresh(run, runs, count, settings, local)


@prompts.command("check")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--column", default="prompt", show_default=True, help="Column of the texts or messages.")
@click.option("--earlier-turns", is_flag=True, help="Keep the messages before the last user turn.")
@click.option("--against", multiple=True, metavar="FILE", help="Another evaluation set to compare with.")
@click.option("--out", metavar="FOLDER", help="Also write a page and a JSON file there.")
def check_prompts(
    files: Sequence[str], column: str, earlier_turns: bool, against: Sequence[str], out: str | None
) -> None:
    """Measure prompts: diversity, near-duplicates, contamination.

    FILE is what prompts.source takes: builtin, a .jsonl, .json, .csv, .tsv, .parquet or .arrow file, a folder
    of such files, or hub:owner/name:split. Each is a set; the sets are shown beside each other.
    """
    from dynalign.launch.commands.prompts_check import prompts_check
    from dynalign.rollout.prompt_sources import RowForm

    for line in prompts_check(files, RowForm(column, earlier_turns), against, out):
        click.echo(line)
