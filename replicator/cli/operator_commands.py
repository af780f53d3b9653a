"""Commands for operators of living daemons, and their options; what they do is in a module each."""

from __future__ import annotations

from typing import Annotated

import typer

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

leases_app = typer.Typer(rich_markup_mode=None, no_args_is_help=True)
gaps_app = typer.Typer(rich_markup_mode=None, no_args_is_help=True)
parked_app = typer.Typer(rich_markup_mode=None, no_args_is_help=True)


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
    """The owner of every shard, and how to take it away."""
    context.obj = config or context.obj


@leases_app.command("list")
def leases_list(  # noqa: PLR0913, PLR0917 - one parameter per option
    context: typer.Context,
    config: Config = None,
    rule: OnlyRule = None,
    owner: Annotated[
        str | None,
        typer.Option(
            "--owner", metavar="ID", help="Only of this worker (its id's beginning), or free.", show_default=False
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Finished shards and drained streams too.")] = False,
    fast: Annotated[bool, typer.Option("--fast", help="Do not look which workers are alive.")] = False,
    json: Json = False,
) -> None:
    """Workers, streams and shards: owner, epoch, state, positions.

    Reads the coordination table, so it works when every daemon is dead. Looks at heartbeats twice to see live workers.
    """
    from replicator.cli.leases import list_leases
    from replicator.operations.leases import LeaseFilter

    chosen = LeaseFilter(rule, owner, everything=everything, fast=fast)
    raise typer.Exit(list_leases(config or context.obj, chosen, as_json=json))


@leases_app.command("release")
def leases_release(  # noqa: PLR0913, PLR0917 - one parameter per option
    context: typer.Context,
    config: Config = None,
    shard: Annotated[str | None, typer.Option("--shard", metavar="ID", help="This shard.", show_default=False)] = None,
    stream: Stream = None,
    worker: Annotated[
        str | None, typer.Option("--worker", metavar="ID", help="Every shard of this worker.", show_default=False)
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every shard that is owned.")] = False,
    yes: NeverAsks = False,  # noqa: ARG001 - as commands that ask have it
    json: Json = False,
) -> None:
    """Take shards from their owners; workers claim them anew.

    Safe at any time: the owner's epoch ends, so it can store nothing more there.
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
            "--to", metavar="SEQ|TIME|trim_horizon", help="A sequence number, a time or span, or the horizon."
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
    """Let a rule read records again.

    --to SEQ reads one shard (--shard) again behind that record; --to TIME (2026-07-01T12:00:00Z, or 2h for two hours
    ago) everything since then; --to trim_horizon everything that the streams still hold. A shard's descendants are read
    again with it. Safe beside living daemons: versions keep old records from undoing newer ones. Shows what will be
    read again first, and asks.
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
    """Let a rule rest, on every worker, until `resume`: everywhere, or in one region that it writes.

    Its positions stay; streams keep records for 24 hours. A region of a mesh is owed what it misses, for longer.
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
    """Let a paused rule go on from its position, or in the region where it rested."""
    from replicator.cli.pauses import resume_region, resume_rule

    if region is not None:
        raise typer.Exit(resume_region(config or context.obj, rule, region, rebuilt=rebuilt, yes=yes, as_json=json))
    if rebuilt:
        raise typer.BadParameter("goes with --region: which region was rebuilt?", param_hint="--rebuilt")
    raise typer.Exit(resume_rule(config or context.obj, rule, as_json=json))


def caches(context: typer.Context, config: Config = None, json: Json = False) -> None:
    """How caches stand: what they are owed, health, nines, the last flush, and what servers they are.

    Exit code 1 when one is away or owed something, 69 when an owed table does not say.
    """
    from replicator.cli.caches import show_caches

    raise typer.Exit(show_caches(config or context.obj, as_json=json))


@gaps_app.callback()
def gaps(context: typer.Context, config: Config = None) -> None:
    """Records that were lost before they were read."""
    context.obj = config or context.obj


@gaps_app.command("list")
def gaps_list(
    context: typer.Context,
    config: Config = None,
    rule: OnlyRule = None,
    everything: Annotated[bool, typer.Option("--all", help="Acknowledged ones too.")] = False,
    json: Json = False,
) -> None:
    """Losses that are not acknowledged, oldest first."""
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
    """Accept a loss: a target that stopped at it goes on behind it.

    Says what is lost first, and asks.
    """
    from replicator.cli.gaps import acknowledge_gap

    raise typer.Exit(acknowledge_gap(config or context.obj, gap, note, yes=yes, as_json=json))


@parked_app.callback()
def parked(context: typer.Context, config: Config = None) -> None:
    """What targets refused: kept, tried again, or given up."""
    context.obj = config or context.obj


@parked_app.command("list")
def parked_list(
    context: typer.Context,
    config: Config = None,
    rule: OnlyRule = None,
    everything: Annotated[bool, typer.Option("--all", help="What was settled lately, too.")] = False,
    json: Json = False,
) -> None:
    """Keys whose newest change a target refused, oldest first, and why.

    A row goes by itself as soon as the target takes a newer change of its key.
    """
    from replicator.cli.parked import list_parked

    raise typer.Exit(list_parked(config or context.obj, rule, everything=everything, as_json=json))


@parked_app.command("show")
def parked_show(
    context: typer.Context,
    row: ParkedId,
    config: Config = None,
    values: Annotated[bool, typer.Option("--values", help="Show what is kept of the change.")] = False,
    json: Json = False,
) -> None:
    """One row with everything that is known of it."""
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
        str | None, typer.Option("--rule", metavar="RULE", help="Every row of this rule.", show_default=False)
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every row.")] = False,
    yes: NeverAsks = False,  # noqa: ARG001 - as commands that ask have it
    json: Json = False,
) -> None:
    """Try again what a target refused, once the target or the item was corrected.

    Safe beside living daemons: the change is written under its own version, which loses against everything newer. Where
    its image is not kept, is older than tombstones live or is refused again, what the source holds now is written. Exit
    code 78 when a row stays.
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
    """Give a refused change up: it is logged as a conflict of kind `dropped`.

    Says what is given up first, and asks.
    """
    from replicator.cli.parked import drop_parked

    raise typer.Exit(drop_parked(config or context.obj, row, yes=yes, as_json=json))


def import_kcl(  # noqa: PLR0913, PLR0917 - one parameter per option
    context: typer.Context,
    table: Annotated[str, typer.Argument(metavar="TABLE", help="Lease table of the KCL consumer.")],
    config: Config = None,
    rule: Annotated[
        str | None, typer.Option("--rule", metavar="RULE", help="The rule to go on; else the only.", show_default=False)
    ] = None,
    region: Annotated[
        str | None,
        typer.Option(
            "--region", help="Region of the lease table and its stream; else the rule's source.", show_default=False
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be taken.")] = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Take the positions of a KCL consumer of a DynamoDB stream, so that a rule goes on where it stopped.

    Stop the consumer first, and start replicator after. Refused when the rule has progress on the stream already.
    """
    from replicator.cli.kcl import import_leases
    from replicator.operations.kcl_import import ImportRequest

    request = ImportRequest(table, rule, region)
    raise typer.Exit(import_leases(config or context.obj, request, dry_run=dry_run, yes=yes, as_json=json))


def reload(
    context: typer.Context,
    config: Config = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would change.")] = False,
    json: Json = False,
) -> None:
    """Let workers take up a changed configuration now, without a restart.

    They do so by themselves within seconds, and at SIGHUP. What cannot be applied while they run is said, and nothing
    changes. Exit code 78: refused; 69: a worker does not answer.
    """
    from replicator.cli.reload import reload_workers

    raise typer.Exit(reload_workers(config or context.obj, dry_run=dry_run, as_json=json))


def audit(
    context: typer.Context,
    config: Config = None,
    limit: Limit = None,
    json: Json = False,
) -> None:
    """What was done through the admin API and the console: who, what, when, from where, and what came of it.

    Newest first. The newest 1000 deeds are kept; one that is `begun` was cut off, so look at what it was about.
    """
    from replicator.cli.audit import show_audit

    raise typer.Exit(show_audit(config or context.obj, limit, as_json=json))
