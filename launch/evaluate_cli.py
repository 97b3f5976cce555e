"""The commands `dynalign evaluate …`: arguments and help. Each imports what it needs when it is called."""

import click

from dynalign.launch.command_group import Commands


@click.group(cls=Commands)
def evaluate() -> None:
    """Compare a trained model with others."""
