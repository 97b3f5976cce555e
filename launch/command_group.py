"""What the groups of commands share: a group that suggests commands, and an option."""

import click

from dynalign.configs.refusals import did_you_mean


class Commands(click.Group):
    """A group that suggests a command for one that does not exist."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        known = self.list_commands(ctx)
        if args and not args[0].startswith("-") and args[0] not in known:
            close = did_you_mean(args[0], known)
            hint = f"did you mean {close}?" if close else f"there are: {', '.join(known)}"
            raise click.UsageError(f"there is no command {args[0]!r}; {hint}")
        return super().resolve_command(ctx, args)


runs_option = click.option(
    "--runs", default="runs", show_default=True, help="Folder that holds the run folders."
)
