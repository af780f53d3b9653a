"""The commands about the conflict log, and their options; what they do is in a module each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from replicator.cli.help_lists import WholeSummaries
from replicator.cli.options import Config, EntryId, Json, Key, Kind, Limit, OnlyRule, Since, Yes

app = typer.Typer(cls=WholeSummaries, rich_markup_mode=None, no_args_is_help=True)


@app.callback()
def conflicts(context: typer.Context, config: Config = None) -> None:
    """List overwritten versions in the conflict log, and restore them."""
    context.obj = config or context.obj


@app.command("list")
def conflicts_list(  # noqa: PLR0913, PLR0917 - one parameter per option
    context: typer.Context,
    config: Config = None,
    rule: OnlyRule = None,
    key: Key = None,
    kind: Kind = None,
    since: Since = None,
    limit: Limit = None,
    json: Json = False,
) -> None:
    """List conflict entries, newest first.

    The table shows the newest 50 unless --limit is given; --json shows all, with both images.
    """
    from replicator.cli.conflicts import list_conflicts
    from replicator.operations.conflict_entries import wanted_entries

    wanted = wanted_entries(rule=rule, key=key, kind=kind, since=since, limit=limit)
    raise typer.Exit(list_conflicts(config or context.obj, wanted, as_json=json))


@app.command("show")
def conflicts_show(context: typer.Context, entry: EntryId, config: Config = None, json: Json = False) -> None:
    """Show one entry with both images, attribute by attribute."""
    from replicator.cli.conflicts import show_conflict

    raise typer.Exit(show_conflict(config or context.obj, entry, as_json=json))


@app.command("export")
def conflicts_export(  # noqa: PLR0913, PLR0917 - one parameter per option
    context: typer.Context,
    config: Config = None,
    rule: OnlyRule = None,
    key: Key = None,
    kind: Kind = None,
    since: Since = None,
    limit: Limit = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write there.", show_default=False)
    ] = None,
    json: Json = False,
) -> None:
    """Export conflict entries as JSON lines, or with --json as one document."""
    from replicator.cli.conflicts import export_conflicts
    from replicator.operations.conflict_entries import wanted_entries

    wanted = wanted_entries(rule=rule, key=key, kind=kind, since=since, limit=limit)
    raise typer.Exit(export_conflicts(config or context.obj, wanted, output, as_json=json))


@app.command("promote")
def conflicts_promote(  # noqa: PLR0913, PLR0917 - one parameter per option
    context: typer.Context,
    entry: EntryId,
    config: Config = None,
    region: Annotated[
        str | None,
        typer.Option("--region", help="Where to write; default: the source, or where it lost.", show_default=False),
    ] = None,
    version: Annotated[
        str | None,
        typer.Option("--version", help="Mode versioned: the version to write; default: one above.", show_default=False),
    ] = None,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Restore the losing version of a conflict, as a new write.

    Shows what would change and asks for confirmation.
    """
    from replicator.cli.conflicts import promote_conflict
    from replicator.operations.promotion import PromotionRequest

    request = PromotionRequest(entry, region, version)
    raise typer.Exit(promote_conflict(config or context.obj, request, yes=yes, as_json=json))
