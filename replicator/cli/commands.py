"""The commands and their options; what they do is in a module each, imported when it is needed."""

from __future__ import annotations

from copy import copy
from pathlib import Path
from typing import Annotated

import typer

from replicator.cli import configuration_commands, conflict_commands, copying_commands
from replicator.cli.demo import demo
from replicator.cli.help_lists import WholeSummaries
from replicator.cli.operator_commands import add_to
from replicator.cli.options import Config, Json, OnlyRule, RuleName, Table
from replicator.domain.drivers import Drivers

app = typer.Typer(
    name="replicator",
    cls=WholeSummaries,
    help="Cross-region replication and cache-sync daemon for Amazon DynamoDB.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
rules_app = typer.Typer(cls=WholeSummaries, rich_markup_mode=None)


def _version(*, wanted: bool) -> None:
    """Print the version and end."""
    if wanted:
        from replicator import __version__

        typer.echo(f"replicator {__version__}")
        raise typer.Exit


@app.callback()
def everywhere(
    context: typer.Context,
    config: Config = None,
    version: Annotated[  # noqa: ARG001 - it has ended the program
        bool, typer.Option("--version", help="The program's version.", is_eager=True, callback=_version)
    ] = False,
) -> None:
    """Cross-region replication and cache-sync daemon for Amazon DynamoDB."""
    context.obj = config


@app.command()
def run(
    context: typer.Context,
    config: Config = None,
    workers: Annotated[
        str, typer.Option("--workers", metavar="N", help="Processes that share the work; auto: one per core.")
    ] = "1",
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse to start when a rule or target would be held.")
    ] = False,
) -> None:
    """Replicate until SIGTERM.

    A rule whose table, stream, key schema or permission is wrong is held: the others run, `status` says why, and it
    starts by itself once that is corrected. The start is refused when no rule can run.

    On SIGTERM it drains, saves checkpoints, releases its shards and exits; a second signal ends it at once. With
    --workers, the admin server of worker n (from 0) listens on admin.port + n, and each worker has its own conflict
    file.
    """
    from replicator.cli.daemon import Asked, start

    raise typer.Exit(start(Asked(config or context.obj, workers, strict)))


@app.command()
def check(
    context: typer.Context,
    config: Config = None,
    offline: Annotated[bool, typer.Option("--offline", help="Check only the file; use no network.")] = False,
    failed: Annotated[bool, typer.Option("--failed", help="Show only failures.")] = False,
    json: Json = False,
) -> None:
    """Check the configuration against AWS and the caches.

    The first line summarises the failures; then one row per check, failures last, each with what to do. Exit code 0:
    nothing failed; 69: a required service does not answer; 78: the configuration, or what it names, is wrong.
    """
    from replicator.cli.check import check_world

    raise typer.Exit(check_world(config or context.obj, offline=offline, failed=failed, as_json=json))


@app.command()
def init(  # noqa: PLR0913, PLR0917 - one per option
    context: typer.Context,
    config: Config = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be done.")] = False,
    enable_streams: Annotated[
        bool, typer.Option("--enable-streams", help="Also enable streams on source tables that have none.")
    ] = False,
    replicas: Annotated[
        bool, typer.Option("--replicas", help="Also create missing replica tables, with the source's key schema.")
    ] = False,
    json: Json = False,
) -> None:
    """Create the tables that the rules need.

    These are the side tables, the coordination table and the conflict table; a second run changes nothing. User tables
    are not touched, except that --enable-streams enables missing streams and --replicas creates missing replicas.
    """
    from replicator.cli.init import initialise_world

    path, asked = config or context.obj, {"enable_streams": enable_streams, "replicas": replicas}
    raise typer.Exit(initialise_world(path, dry_run=dry_run, **asked, as_json=json))


app.command()(demo)


@app.command()
def status(  # noqa: PLR0913, PLR0917 - one parameter per option
    context: typer.Context,
    config: Config = None,
    rule: OnlyRule = None,
    watch: Annotated[bool, typer.Option("--watch", help="Refresh every second until Ctrl-C.")] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Include finished shards and tables no longer read.")
    ] = False,
    wide: Annotated[bool, typer.Option("--wide", help="Show every column, and reasons in full.")] = False,
    problems: Annotated[bool, typer.Option("--problems", help="Show only problems, with all details.")] = False,
    json: Json = False,
) -> None:
    """Show problems and their remedies, and the lag of every target.

    The first line is the verdict. Reads the coordination table, so it works when every daemon is down, and the admin
    servers of the workers that answer. Exit code 0: healthy; 1: there are problems; 69: the state cannot be determined.
    """
    from replicator.cli.status import show_status
    from replicator.cli.status_screen import Shown

    path = config or context.obj
    shown = Shown(path, rule, everything=everything, wide=wide, problems=problems)
    raise typer.Exit(show_status(shown, again=watch, as_json=json))


@app.command()
def inspect(  # noqa: PLR0913, PLR0917 - one parameter per argument and option
    context: typer.Context,
    rule: RuleName,
    key: Annotated[
        str,
        typer.Argument(
            metavar="KEY",
            help="""Key as shown ('pk=a, sk=1'), as JSON ('{"pk":"a","sk":1}'), or the value of a simple key.""",
        ),
    ],
    config: Config = None,
    table: Table = None,
    values: Annotated[bool, typer.Option("--values", help="Show the items' values.")] = False,
    json: Json = False,
) -> None:
    """Show one item in every region and cache, side by side.

    Shows the item and its version in each region, tombstones and cache entries, and whether they agree. Exit code 0:
    they agree; 1: they differ, with the reason; 69: a region or cache did not answer.
    """
    from replicator.cli.inspect import inspect_item

    raise typer.Exit(inspect_item(config or context.obj, rule, key, table=table, values=values, as_json=json))


app.add_typer(rules_app, name="rules")


@rules_app.callback(invoke_without_command=True)
def rules(context: typer.Context, config: Config = None, json: Json = False) -> None:
    """List the rules, or change what is stored about them.

    Without a command, lists the configured rules, and the stored progress of rules that are no longer configured.
    """
    context.obj = config or context.obj
    if context.invoked_subcommand is None:
        from replicator.cli.rules import list_rules

        raise typer.Exit(list_rules(context.obj, as_json=json))


@rules_app.command("rename")
def rules_rename(
    context: typer.Context,
    old: Annotated[str, typer.Argument(metavar="OLD", help="The rule's previous name.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="The rule's name in the configuration.")],
    config: Config = None,
    json: Json = False,
) -> None:
    """Move the stored progress of a renamed rule to its new name. All daemons of the group must be stopped."""
    from replicator.cli.rules import rename_rule

    raise typer.Exit(rename_rule(config or context.obj, old, new, as_json=json))


@rules_app.command("forget")
def rules_forget(
    context: typer.Context,
    old: Annotated[str, typer.Argument(metavar="OLD", help="The rule's name.")],
    config: Config = None,
    json: Json = False,
) -> None:
    """Delete the stored progress of a rule. All daemons of the group must be stopped."""
    from replicator.cli.rules import forget_rule

    raise typer.Exit(forget_rule(config or context.obj, old, as_json=json))


@rules_app.command("accept")
def rules_accept(  # noqa: PLR0913, PLR0917 - one parameter per argument and option
    context: typer.Context,
    rule: RuleName,
    region: Annotated[
        str, typer.Option("--region", help="The region of the table that was re-created.", show_default=False)
    ],
    config: Config = None,
    table: Annotated[
        str | None,
        typer.Option("--table", help="Only this table; otherwise all of the rule's there.", show_default=False),
    ] = None,
    json: Json = False,
) -> None:
    """Let a rule continue with a table that was dropped and re-created.

    The new table lacks earlier items; it receives changes from the rule's checkpoint on. Daemons may be running.
    """
    from replicator.cli.rules import accept_tables

    raise typer.Exit(accept_tables(config or context.obj, rule, region, table, as_json=json))


@rules_app.command("drive")
def rules_drive(
    context: typer.Context,
    rule: RuleName,
    by: Annotated[Drivers, typer.Option("--by", help="What runs the rule.", show_default=False)],
    config: Config = None,
    json: Json = False,
) -> None:
    """Run a rule by Lambda functions instead of pods, or by pods again. Both may be deployed; only one is active."""
    from replicator.cli.rules import drive_rule

    raise typer.Exit(drive_rule(config or context.obj, rule, by, as_json=json))


app.add_typer(conflict_commands.app, name="conflicts")
add_to(app)
copying_commands.add_to(app)
configuration_commands.add_to(app)


@app.command()
def health(
    context: typer.Context,
    config: Config = None,
    ready: Annotated[bool, typer.Option("--ready", help="Check readiness instead of liveness.")] = False,
    json: Json = False,
) -> None:
    """Check the health of the worker on this machine.

    For probes. Exit code 0: healthy; 1: unhealthy; 69: nothing answers.
    """
    from replicator.cli.health import ask_health

    raise typer.Exit(ask_health(config or context.obj, ready=ready, as_json=json))


@app.command()
def schema(
    check: Annotated[
        Path | None, typer.Option("--check", metavar="FILE", help="Exit with 1 when this file is not the schema.")
    ] = None,
    api: Annotated[bool, typer.Option("--api", help="The OpenAPI document of the admin API.")] = False,
    json: Json = False,  # noqa: ARG001 - a schema is JSON in any case
) -> None:
    """Print the JSON schema of the configuration."""
    from replicator.cli.schema import print_schema

    raise typer.Exit(print_schema(check, api=api))


@app.command()
def version(json: Json = False) -> None:
    """Print the program's version."""
    from replicator import __version__

    typer.echo(f'{{"version": "{__version__}"}}' if json else f"replicator {__version__}")


def only(command: str | None) -> typer.Typer:
    """The program with this command alone, which takes 20 ms less to make; with all of them when it is none."""
    if command is None:
        return app
    commands = [info for info in app.registered_commands if info.callback and info.callback.__name__ == command]
    if len(commands) != 1:
        return app
    small = copy(app)
    small.registered_commands, small.registered_groups = commands, []
    return small
