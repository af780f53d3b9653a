"""Lists of commands in `--help`."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

_NEVER_CUT = 1000


class WholeSummaries(TyperGroup):
    """A group of commands whose list wraps what each of them does, where the library would cut it."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List the commands that are shown."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, each.get_short_help_str(_NEVER_CUT)) for name, each in commands if each and not each.hidden]
        with formatter.section("Commands"):
            formatter.write_dl(rows)
