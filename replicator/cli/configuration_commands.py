"""Commands about what a configuration asks of the world, and their options; what they do is in a module each."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer

from replicator.cli.options import Config, Json


def add_to(app: typer.Typer) -> None:
    """Give the program these commands."""
    app.command()(iam)
    app.command()(plan)


class PolicyFormat(enum.StrEnum):
    """How a policy is written."""

    JSON = "json"
    TERRAFORM = "terraform"


class PolicyRole(enum.StrEnum):
    """Whose policy it is."""

    WORKER = "worker"
    OPERATOR = "operator"
    SETUP = "setup"


def iam(  # noqa: PLR0913, PLR0917 - one parameter per option
    context: typer.Context,
    config: Config = None,
    role: Annotated[
        PolicyRole,
        typer.Option("--role", help="worker: run and check; setup: init and uninstall; operator: other commands."),
    ] = PolicyRole.WORKER,
    function: Annotated[
        bool, typer.Option("--lambda", help="The policy of the Lambda function and its event source mapping.")
    ] = False,
    name: Annotated[
        str | None,
        typer.Option(
            "--function", metavar="NAME", help="Name of the function; default: replicator.", show_default=False
        ),
    ] = None,
    config_s3: Annotated[
        str | None,
        typer.Option("--config-s3", metavar="S3_URL", help="The function's REPLICATOR_CONFIG_S3.", show_default=False),
    ] = None,
    config_ssm: Annotated[
        str | None,
        typer.Option("--config-ssm", metavar="NAMES", help="Its REPLICATOR_CONFIG_SSM.", show_default=False),
    ] = None,
    config_key: Annotated[
        str | None,
        typer.Option("--config-key", metavar="ARN", help="The key that encrypts one of these.", show_default=False),
    ] = None,
    region: Annotated[
        str | None, typer.Option("--region", help="The policy of this region alone, or `base`.", show_default=False)
    ] = None,
    format_: Annotated[PolicyFormat, typer.Option("--format", help="Output format.")] = PolicyFormat.JSON,
    offline: Annotated[bool, typer.Option("--offline", help="Do not look up accounts and keys at AWS.")] = False,
    account: Annotated[
        list[str] | None,
        typer.Option(
            "--account",
            metavar="[REGION=]NUMBER",
            help="The account number, if it cannot be looked up.",
            show_default=False,
        ),
    ] = None,
    export: Annotated[
        list[str] | None,
        typer.Option("--export", metavar="S3_URL", help="Where `--from-export` reads.", show_default=False),
    ] = None,
    json: Json = False,
) -> None:
    """Print least-privilege IAM policies for this configuration.

    One JSON document with a policy per region id (`base`: the identity that assumes the regions' roles); with --region,
    that policy alone. `*` is used only where AWS accepts no narrower resource; the statement's Sid says so.
    """
    from replicator.cli.iam import Configured, asked_of, print_policies
    from replicator.domain.permissions import Role

    asked = asked_of(
        Role(role.value),
        function=function,
        name=name,
        configured=Configured(config_s3, config_ssm, config_key),
        accounts=account or (),
        exports=export or (),
        offline=offline,
    )
    as_terraform = format_ is PolicyFormat.TERRAFORM and not json
    raise typer.Exit(print_policies(config or context.obj, asked, region, as_terraform=as_terraform))


def plan(  # noqa: PLR0913, PLR0917 - one parameter per option
    context: typer.Context,
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[OLD] [NEW]", help="Two files to compare, or one new file.", show_default=False, readable=False
        ),
    ] = None,
    config: Config = None,
    sample: Annotated[
        int, typer.Option("--sample", metavar="N", help="Show the effect on N items of each source.")
    ] = 0,
    values: Annotated[bool, typer.Option("--values", help="Show the resulting values of these items.")] = False,
    json: Json = False,
) -> None:
    """Show which bootstraps and repairs a changed configuration needs, and their cost.

    With OLD and NEW, compares two files without the network. Otherwise compares the configuration, or NEW, with what
    the group has stored: targets without progress, and changed filters, transforms and key templates. Changes nothing.
    Exit code 0: nothing is needed; 1: something is.
    """
    from replicator.cli.plan import show_plan

    code = show_plan(config or context.obj, files or (), sample=sample, values=values, as_json=json)
    raise typer.Exit(code)
