"""The commands `dynalign prompts …`, as click parses them."""

from collections.abc import Sequence

import click

from dynalign.launch.command_group import Commands


@click.group(cls=Commands)
def prompts() -> None:
    """Measure prompts to train on."""


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
