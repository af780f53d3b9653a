"""Commands for operators of living daemons, and their options; what they do is in a module each."""

from __future__ import annotations

from typing import Annotated

import typer

from replicator.cli.help_lists import WholeSummaries
from replicator.cli.options import (
    Config,
    Json,
    Limit,
    NeverAsks,
    Note,
    OnlyRule,
    ParkedId,
    Rebuilt,
    RestingRegion,
    RuleName,
    Stream,
    Yes,
)

leases_app = typer.Typer(cls=WholeSummaries, rich_markup_mode=None, no_args_is_help=True)
gaps_app = typer.Typer(cls=WholeSummaries, rich_markup_mode=None, no_args_is_help=True)
parked_app = typer.Typer(cls=WholeSummaries, rich_markup_mode=None, no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Give the program these commands."""
    app.add_typer(leases_app, name="leases")
    app.add_typer(gaps_app, name="gaps")
    app.add_typer(parked_app, name="parked")
    app.command()(rewind)
    leases_app.command("rewind")(rewind)
    app.command()(caches)
    app.command()(pause)
    app.command()(resume)
    app.command()(reload)
    app.command()(audit)
    app.command("import-kcl")(import_kcl)


@leases_app.callback()
def leases(context: typer.Context, config: Config = None) -> None:
    """List and release shard leases."""
    context.obj = config or context.obj


@leases_app.command("list")
def leases_list(  # noqa: PLR0913, PLR0917 - one parameter per option
    context: typer.Context,
    config: Config = None,
    rule: OnlyRule = None,
    owner: Annotated[
        str | None,
        typer.Option(
            "--owner", metavar="ID", help="Only this worker's (id or its prefix), or `free`.", show_default=False
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Include finished shards and drained streams.")] = False,
    fast: Annotated[bool, typer.Option("--fast", help="Do not check which workers are alive.")] = False,
    json: Json = False,
) -> None:
    """List workers, streams and shards: owner, epoch, state, checkpoints.

    Reads the coordination table, so it works when every daemon is down. Reads heartbeats twice to find live workers.
    """
    from replicator.cli.leases import list_leases
    from replicator.operations.leases import LeaseFilter

    chosen = LeaseFilter(rule, owner, everything=everything, fast=fast)
    raise typer.Exit(list_leases(config or context.obj, chosen, as_json=json))


@leases_app.command("release")
def leases_release(  # noqa: PLR0913, PLR0917 - one parameter per option
    context: typer.Context,
    config: Config = None,
    shard: Annotated[
        str | None, typer.Option("--shard", metavar="ID", help="Release this shard.", show_default=False)
    ] = None,
    stream: Stream = None,
    worker: Annotated[
        str | None,
        typer.Option("--worker", metavar="ID", help="Release every shard of this worker.", show_default=False),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Release every owned shard.")] = False,
    yes: NeverAsks = False,  # noqa: ARG001 - as commands that ask have it
    json: Json = False,
) -> None:
    """Release the leases of shards, so that workers claim them again.

    Safe at any time: the lease epoch is raised, so the previous owner can store no more checkpoints there.
    """
    from replicator.cli.leases import release_leases
    from replicator.operations.leases import ReleaseRequest

    raise typer.Exit(
        release_leases(config or context.obj, ReleaseRequest(shard, stream, worker, everything), as_json=json)
    )


def rewind(  # noqa: PLR0913, PLR0917 - one parameter per option
    context: typer.Context,
    rule: RuleName,
    to: Annotated[
        str,
        typer.Option(
            "--to", metavar="SEQ|TIME|trim_horizon", help="A sequence number, a time or span, or the trim horizon."
        ),
    ],
    config: Config = None,
    shard: Annotated[
        str | None,
        typer.Option("--shard", metavar="ID", help="Only this shard and its descendants.", show_default=False),
    ] = None,
    stream: Stream = None,
    region: Annotated[
        str | None,
        typer.Option("--region", help="Only this replica; in a mesh, only this region's stream.", show_default=False),
    ] = None,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Move a rule's checkpoints back, so that it reads records again.

    --to SEQ re-reads one shard (--shard) after that record; --to TIME (2026-07-01T12:00:00Z, or 2h for two hours ago)
    everything since then; --to trim_horizon everything that the streams still hold. Descendants of a shard are re-read
    with it. Safe while daemons run: versions prevent old records from undoing newer ones. Shows what will be re-read
    and asks for confirmation.
    """
    from replicator.cli.rewind import rewind_rule
    from replicator.domain.identifiers import ShardId
    from replicator.operations.rewind import RewindRequest

    request = RewindRequest(rule, to, None if shard is None else ShardId(shard), region, stream)
    raise typer.Exit(rewind_rule(config or context.obj, request, yes=yes, as_json=json))


def pause(  # noqa: PLR0913, PLR0917 - one parameter per option
    context: typer.Context,
    rule: RuleName,
    config: Config = None,
    region: RestingRegion = None,
    note: Note = "",
    yes: NeverAsks = False,  # noqa: ARG001 - as commands that ask have it
    json: Json = False,
) -> None:
    """Pause a rule on every worker until `resume`: entirely, or for one target region.

    Checkpoints are kept, but a stream keeps records for 24 hours only. What a paused region of a mesh misses is stored
    for longer, as its backlog.
    """
    from replicator.cli.pauses import pause_region, pause_rule

    if region is not None:
        raise typer.Exit(pause_region(config or context.obj, rule, region, note, as_json=json))
    raise typer.Exit(pause_rule(config or context.obj, rule, note, as_json=json))


def resume(  # noqa: PLR0913, PLR0917 - one parameter per option
    context: typer.Context,
    rule: RuleName,
    config: Config = None,
    region: RestingRegion = None,
    rebuilt: Rebuilt = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Resume a paused rule from its checkpoint, or its paused region."""
    from replicator.cli.pauses import resume_region, resume_rule

    if region is not None:
        raise typer.Exit(resume_region(config or context.obj, rule, region, rebuilt=rebuilt, yes=yes, as_json=json))
    if rebuilt:
        raise typer.BadParameter("goes with --region: which region was rebuilt?", param_hint="--rebuilt")
    raise typer.Exit(resume_rule(config or context.obj, rule, as_json=json))


def caches(  # noqa: PLR0913, PLR0917 - one parameter per option
    context: typer.Context,
    config: Config = None,
    orphans: Annotated[
        bool, typer.Option("--orphans", help="Look for entries of items that are gone, which no comparison finds.")
    ] = False,
    rule: OnlyRule = None,
    most: Annotated[
        int, typer.Option("--most", min=1, help="With --orphans: entries to look at for each key template.")
    ] = 10_000,
    drop: Annotated[bool, typer.Option("--drop", help="With --orphans: drop what is found.")] = False,
    json: Json = False,
) -> None:
    """Show each cache: health, backlog, consistency in nines, last flush and servers.

    Exit code 1: a cache is away or has a backlog; 69: a table that holds the backlog does not answer.
    With --orphans, 1: entries of items that are gone stay.
    """
    if orphans:
        from replicator.cli.cache_orphans import show_orphans
        from replicator.operations.cache_orphans import OrphanRequest

        raise typer.Exit(show_orphans(config or context.obj, OrphanRequest(rule, most, drop), as_json=json))
    if drop or rule is not None:
        raise typer.BadParameter("goes with --orphans.", param_hint="--drop" if drop else "--rule")
    from replicator.cli.caches import show_caches

    raise typer.Exit(show_caches(config or context.obj, as_json=json))


@gaps_app.callback()
def gaps(context: typer.Context, config: Config = None) -> None:
    """List and acknowledge gaps: records that left the stream before they were read."""
    context.obj = config or context.obj


@gaps_app.command("list")
def gaps_list(
    context: typer.Context,
    config: Config = None,
    rule: OnlyRule = None,
    everything: Annotated[bool, typer.Option("--all", help="Include acknowledged ones.")] = False,
    json: Json = False,
) -> None:
    """List gaps that are not acknowledged, oldest first."""
    from replicator.cli.gaps import list_gaps

    raise typer.Exit(list_gaps(config or context.obj, rule, everything=everything, as_json=json))


@gaps_app.command("acknowledge")
def gaps_acknowledge(  # noqa: PLR0913, PLR0917 - one parameter per option
    context: typer.Context,
    gap: Annotated[str, typer.Argument(metavar="ID", help="Id of the gap, or at least four characters of it.")],
    config: Config = None,
    note: Note = "",
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Accept a gap, so that a target that stopped at it continues after it.

    Shows what is lost and asks for confirmation.
    """
    from replicator.cli.gaps import acknowledge_gap

    raise typer.Exit(acknowledge_gap(config or context.obj, gap, note, yes=yes, as_json=json))


@parked_app.callback()
def parked(context: typer.Context, config: Config = None) -> None:
    """List, retry or drop parked records: changes that a target refused."""
    context.obj = config or context.obj


@parked_app.command("list")
def parked_list(
    context: typer.Context,
    config: Config = None,
    rule: OnlyRule = None,
    everything: Annotated[bool, typer.Option("--all", help="Include rows that were resolved recently.")] = False,
    json: Json = False,
) -> None:
    """List keys whose newest change a target refused, oldest first, with the reason.

    A row is removed by itself as soon as the target accepts a newer change of its key.
    """
    from replicator.cli.parked import list_parked

    raise typer.Exit(list_parked(config or context.obj, rule, everything=everything, as_json=json))


@parked_app.command("show")
def parked_show(
    context: typer.Context,
    row: ParkedId,
    config: Config = None,
    values: Annotated[bool, typer.Option("--values", help="Show the stored values of the change.")] = False,
    json: Json = False,
) -> None:
    """Show one row with all its details."""
    from replicator.cli.parked import show_parked

    raise typer.Exit(show_parked(config or context.obj, row, values=values, as_json=json))


@parked_app.command("retry")
def parked_retry(  # noqa: PLR0913, PLR0917 - one parameter per option
    context: typer.Context,
    row: Annotated[
        str | None,
        typer.Argument(metavar="ID", help="Id of the row, or at least four characters of it.", show_default=False),
    ] = None,
    config: Config = None,
    rule: Annotated[
        str | None, typer.Option("--rule", metavar="RULE", help="Retry every row of this rule.", show_default=False)
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Retry every row.")] = False,
    yes: NeverAsks = False,  # noqa: ARG001 - as commands that ask have it
    json: Json = False,
) -> None:
    """Retry refused changes, after the target or the item was corrected.

    Safe while daemons run: a change is written with its own version, which loses against anything newer. If its image
    was not stored, is older than the tombstone TTL or is refused again, the source's current item is written. Exit code
    78: a row is still parked.
    """
    from replicator.cli.parked import retry_parked

    raise typer.Exit(retry_parked(config or context.obj, row, rule, everything=everything, as_json=json))


@parked_app.command("drop")
def parked_drop(
    context: typer.Context,
    row: ParkedId,
    config: Config = None,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Drop a refused change; it is logged as a conflict of kind `dropped`.

    Shows what is dropped and asks for confirmation.
    """
    from replicator.cli.parked import drop_parked

    raise typer.Exit(drop_parked(config or context.obj, row, yes=yes, as_json=json))


def import_kcl(  # noqa: PLR0913, PLR0917 - one parameter per option
    context: typer.Context,
    table: Annotated[str, typer.Argument(metavar="TABLE", help="Lease table of the KCL consumer.")],
    config: Config = None,
    rule: Annotated[
        str | None,
        typer.Option("--rule", metavar="RULE", help="The rule to continue; default: the only one.", show_default=False),
    ] = None,
    region: Annotated[
        str | None,
        typer.Option(
            "--region", help="Region of the lease table and its stream; default: the rule's source.", show_default=False
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be imported.")] = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Import the checkpoints of a KCL consumer of a DynamoDB stream, so that a rule continues from there.

    Stop the consumer first, and start replicator afterwards. Refused if the rule already has progress on the stream.
    """
    from replicator.cli.kcl import import_leases
    from replicator.operations.kcl_import import ImportRequest

    request = ImportRequest(table, rule, region)
    raise typer.Exit(import_leases(config or context.obj, request, dry_run=dry_run, yes=yes, as_json=json))


def reload(
    context: typer.Context,
    config: Config = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would change.")] = False,
    json: Json = False,
) -> None:
    """Apply a changed configuration now, without restarting the workers.

    Workers do so by themselves within seconds of a change, and on SIGHUP. A change that needs a restart is reported and
    not applied. Exit code 78: refused; 69: a worker does not answer.
    """
    from replicator.cli.reload import reload_workers

    raise typer.Exit(reload_workers(config or context.obj, dry_run=dry_run, as_json=json))


def audit(
    context: typer.Context,
    config: Config = None,
    limit: Limit = None,
    json: Json = False,
) -> None:
    """List actions of the admin API and the console: who, what, when, from where, with which result.

    Newest first; the newest 1000 are kept. An action still `begun` was interrupted: check what it changed.
    """
    from replicator.cli.audit import show_audit

    raise typer.Exit(show_audit(config or context.obj, limit, as_json=json))
