"""A benchmark's command as a process: its signals, its errors, its exit code."""

import signal

import click

from dynalign.configs.errors import DynalignError, UserError

INTERRUPTED = "interrupted"
"""What is said of whatever was interrupted."""
INTERRUPTED_CODE = 130


def run_command_line(command: click.Command, name: str) -> int:
    """Runs `command` with the arguments of this process; returns the exit code: 2 wrong arguments, 1 another
    expected error, 130 interrupted. name: of the program, in its usage."""
    # A shell's background job ignores SIGINT unless a handler is set.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupted)
    try:
        return int(command.main(prog_name=name, standalone_mode=False) or 0)
    except (click.Abort, KeyboardInterrupt):
        click.echo(INTERRUPTED, err=True)
        return INTERRUPTED_CODE
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except UserError as error:
        click.echo(str(error), err=True)
        return 2
    except DynalignError as error:
        click.echo(" ".join(f"{type(error).__name__}: {error}".split()), err=True)
        return 1


def _interrupted(number: int, frame: object) -> None:
    raise KeyboardInterrupt
