"""Commands about whole tables, and their options; what they do is in a module each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from replicator.cli.help_lists import WholeSummaries
from replicator.cli.options import Config, Json, NeverAsks, OnlyRule, RuleName, Table, Yes

jobs_app = typer.Typer(cls=WholeSummaries, rich_markup_mode=None, no_args_is_help=True)

JobId = Annotated[str, typer.Argument(metavar="ID", help="Id of the job, or at least four characters of it.")]
ReadUnits = Annotated[
    int | None,
    typer.Option(
        "--read-units", min=1, help="Read units per second and region, of all workers together.", show_default=False
    ),
]
WriteUnits = Annotated[
    int | None,
    typer.Option(
        "--write-units", min=1, help="Write units per second and region, of all workers together.", show_default=False
    ),
]

Keys = Annotated[
    list[str] | None,
    typer.Option("--key", metavar="KEY", help="Only this item, written as for `inspect`; repeatable."),
]
Prefix = Annotated[
    str | None,
    typer.Option("--prefix", help="Only items whose partition key has this prefix.", show_default=False),
]


def add_to(app: typer.Typer) -> None:
    """Give the program these commands."""
    app.command()(bootstrap)
    app.command()(verify)
    app.command()(repair)
    app.command()(uninstall)
    app.add_typer(jobs_app, name="jobs")


def bootstrap(  # noqa: PLR0913, PLR0917 - one parameter per option
    context: typer.Context,
    rule: RuleName,
    config: Config = None,
    table: Table = None,
    region: Annotated[
        str | None,
        typer.Option("--region", help="Only this replica; default: those never bootstrapped.", show_default=False),
    ] = None,
    from_export: Annotated[
        str | None,
        typer.Option(
            "--from-export",
            metavar="s3://BUCKET/PREFIX|DIRECTORY",
            help="Read a full export (DynamoDB JSON) instead of the table.",
            show_default=False,
        ),
    ] = None,
    extra: Annotated[
        str,
        typer.Option("--extra", metavar="keep|delete|list", help="How to treat items that only a replica holds."),
    ] = "list",
    no_verify: Annotated[bool, typer.Option("--no-verify", help="Do not verify afterwards.")] = False,
    read_units: ReadUnits = None,
    write_units: WriteUnits = None,
    detach: Annotated[bool, typer.Option("--detach", help="Return at once; do not follow the job.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be read and written.")] = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Copy items that are older than the stream to the replicas, or merge the regions of a mesh.

    Shows what that reads, writes and costs, and asks for confirmation. Workers do it during replication, within
    --read-units and --write-units; nothing newer is overwritten. Ctrl-C does not stop the job. A comparison follows:
    exit code 1 if anything differs.
    """
    from replicator.cli.bootstrap import bootstrap_rule
    from replicator.operations.bootstrap import BootstrapRequest

    request = BootstrapRequest(rule, table, region, extra, not no_verify, read_units, write_units, from_export)
    raise typer.Exit(
        bootstrap_rule(config or context.obj, request, detach=detach, dry_run=dry_run, yes=yes, as_json=json)
    )


def verify(  # noqa: PLR0913, PLR0917 - one parameter per option
    context: typer.Context,
    rule: RuleName,
    config: Config = None,
    table: Table = None,
    key: Keys = None,
    prefix: Prefix = None,
    sample: Annotated[
        str | None,
        typer.Option("--sample", metavar="SHARE", help="Only a random part, for example 1%.", show_default=False),
    ] = None,
    values: Annotated[bool, typer.Option("--values", help="Show the values of items that differ.")] = False,
    read_units: ReadUnits = None,
    caches: Annotated[
        bool,
        typer.Option("--caches", help="Also look for cache entries of items that are gone, as `caches --orphans`."),
    ] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Return at once; do not follow the job.")] = False,
    json: Json = False,
) -> None:
    """Compare the tables of a rule and their caches, item by item.

    Differences are checked a second time, after the stream has caught up, so that changes in flight do not count.
    Workers do it during replication; without a worker, this process does. Exit code 0: nothing differs; 1: something
    differs.
    """
    from replicator.cli.comparisons import Asked, compare_tables
    from replicator.domain.jobs import JobKind
    from replicator.operations.comparison_requests import ComparisonRequest, parse_sample

    if caches and detach:
        raise typer.BadParameter("is done by this process, which --detach ends.", param_hint="--caches")
    request = ComparisonRequest(
        keys=tuple(key or ()),
        prefix=prefix,
        sample=None if sample is None else parse_sample(sample),
        read_units=read_units,
    )
    asked = Asked(rule, table, values=values, caches=caches, detach=detach, as_json=json)
    raise typer.Exit(compare_tables(config or context.obj, JobKind.VERIFY, request, asked))


def repair(  # noqa: PLR0913, PLR0917 - one parameter per option
    context: typer.Context,
    rule: RuleName,
    config: Config = None,
    table: Table = None,
    key: Keys = None,
    prefix: Prefix = None,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from", metavar="FILE", help="Only the differences in this output of `verify --json`.", show_default=False
        ),
    ] = None,
    extra: Annotated[
        str,
        typer.Option("--extra", metavar="keep|delete|list", help="How to treat items without a version."),
    ] = "list",
    missing: Annotated[
        str,
        typer.Option(
            "--missing",
            metavar="keep|delete|manual",
            help="In a mesh: how to treat an item missing in a region without a tombstone.",
        ),
    ] = "keep",
    read_units: ReadUnits = None,
    write_units: WriteUnits = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what differs.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Return at once; do not follow the job.")] = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Correct items that differ, if two comparisons agree and the item has not changed since.

    Replaced versions are kept in the conflict log, as kind `repair`; `replicator conflicts promote` restores them. Asks
    for confirmation. Exit code 0: nothing differs any more.
    """
    from replicator.cli.comparisons import Asked, compare_tables, nothing_to_repair
    from replicator.domain.jobs import JobKind
    from replicator.operations.comparison_requests import ComparisonRequest, check_policies, keys_in

    check_policies(extra, missing)
    listed = () if source is None else keys_in(source)
    if source is not None and not listed:
        raise typer.Exit(nothing_to_repair(as_json=json))
    request = ComparisonRequest(
        keys=tuple(key or ()),
        listed=listed,
        prefix=prefix,
        read_units=read_units,
        write_units=write_units,
        dry_run=dry_run,
        extra=extra,
        missing=missing,
    )
    asked = Asked(rule, table, detach=detach, yes=yes, as_json=json)
    raise typer.Exit(compare_tables(config or context.obj, JobKind.REPAIR, request, asked))


def uninstall(  # noqa: PLR0913, PLR0917 - one parameter per option
    context: typer.Context,
    rule: RuleName,
    config: Config = None,
    read_units: ReadUnits = None,
    write_units: WriteUnits = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be removed.")] = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Remove all metadata of a rule that no worker runs any more; replicated items stay.

    That is version stamps in items, side rows, checkpoints, gaps, parked keys and jobs. The rule must be in this
    configuration, but in no worker's. Shows what is removed and asks for confirmation. If interrupted, run it again.
    Exit code 1: something could not be removed.
    """
    from replicator.cli.uninstall import uninstall_rule
    from replicator.operations.uninstall import UninstallRequest

    request = UninstallRequest(rule, read_units, write_units)
    raise typer.Exit(uninstall_rule(config or context.obj, request, dry_run=dry_run, yes=yes, as_json=json))


@jobs_app.callback()
def jobs(context: typer.Context, config: Config = None) -> None:
    """List and control jobs over whole tables: bootstrap, verify, repair."""
    context.obj = config or context.obj


@jobs_app.command("list")
def jobs_list(
    context: typer.Context,
    config: Config = None,
    rule: OnlyRule = None,
    everything: Annotated[bool, typer.Option("--all", help="Include finished jobs.")] = False,
    json: Json = False,
) -> None:
    """List unfinished jobs, oldest first."""
    from replicator.cli.jobs import list_jobs

    raise typer.Exit(list_jobs(config or context.obj, rule, everything=everything, as_json=json))


@jobs_app.command("show")
def jobs_show(
    context: typer.Context,
    job: JobId,
    config: Config = None,
    watch: Annotated[bool, typer.Option("--watch", help="Follow it until it ends, or until Ctrl-C.")] = False,
    json: Json = False,
) -> None:
    """Show one job: progress, counts and findings."""
    from replicator.cli.jobs import show_job

    raise typer.Exit(show_job(config or context.obj, job, watch=watch, as_json=json))


@jobs_app.command("pause")
def jobs_pause(
    context: typer.Context,
    job: JobId,
    config: Config = None,
    yes: NeverAsks = False,  # noqa: ARG001 - as commands that ask have it
    json: Json = False,
) -> None:
    """Pause a job after its current pages; its progress is kept."""
    from replicator.cli.jobs import pause_job

    raise typer.Exit(pause_job(config or context.obj, job, as_json=json))


@jobs_app.command("resume")
def jobs_resume(
    context: typer.Context,
    job: JobId,
    config: Config = None,
    yes: NeverAsks = False,  # noqa: ARG001 - as commands that ask have it
    json: Json = False,
) -> None:
    """Resume a job where it paused."""
    from replicator.cli.jobs import resume_job

    raise typer.Exit(resume_job(config or context.obj, job, as_json=json))


@jobs_app.command("cancel")
def jobs_cancel(
    context: typer.Context,
    job: JobId,
    config: Config = None,
    yes: NeverAsks = False,  # noqa: ARG001 - as commands that ask have it
    json: Json = False,
) -> None:
    """Cancel a job; what it has done is kept."""
    from replicator.cli.jobs import cancel_job

    raise typer.Exit(cancel_job(config or context.obj, job, as_json=json))
