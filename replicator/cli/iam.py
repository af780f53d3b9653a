"""`replicator iam`: the least that each role must be allowed, as JSON or for Terraform."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from replicator.cli.output import note, print_json
from replicator.cli.running import loaded
from replicator.domain.errors import EXIT_STOPPED
from replicator.domain.permissions import Role, policy_document, terraform
from replicator.operations.errors import RequestRefused
from replicator.operations.permissions import Asked, policies
from replicator.settings.function_places import object_place, parameter_names

_ACCOUNT = re.compile(r"(?:([a-z]{2})=)?(\d{12})")


@dataclass(frozen=True, slots=True)
class Configured:
    """Where a function's configuration is, as the command line says it, and the key that encrypts it."""

    object: str | None = None
    parameters: str | None = None
    key: str | None = None


def print_policies(config: Path | None, asked: Asked, region: str | None, *, as_terraform: bool) -> int:
    """Every region's policy, or one; standard output holds nothing else."""
    settings = loaded(config)
    for name in {region, *asked.accounts} - {None, "", "base", *settings.regions}:
        raise RequestRefused(f"There is no region {name}.", advice=f"Regions are: {', '.join(settings.regions)}.")
    made = asyncio.run(policies(settings, asked))
    for sentence in made.notes:
        note(sentence)
    wanted = [each for each in made.policies if region in {None, each.name} and each.statements]
    if not wanted:
        raise RequestRefused(f"Role {asked.role} needs nothing in region {region}.", advice="Leave --region out.")
    if as_terraform:
        parts = [
            terraform(
                f"replicator_{asked.role}_{each.name}",
                f"replicator-{settings.group}-{asked.role}-{each.name}",
                each.statements,
            )
            for each in wanted
        ]
        sys.stdout.write("\n".join(parts))
    elif region is not None:
        print_json(policy_document(wanted[0].statements))
    else:
        print_json({each.name: policy_document(each.statements) for each in wanted})
    return EXIT_STOPPED


def asked_of(  # noqa: PLR0913 - what the command line may say
    role: Role,
    *,
    function: bool,
    name: str | None,
    configured: Configured,
    accounts: Iterable[str],
    exports: Iterable[str],
    offline: bool,
) -> Asked:
    """What the command line asks for; refused when it makes no sense."""
    if name is not None and not function:
        raise RequestRefused("--function names the Lambda function.", advice="Add --lambda.")
    if configured != Configured() and not function:
        raise RequestRefused("--config-s3, --config-ssm and --config-key are a function's.", advice="Add --lambda.")
    if (configured.object is None) == (configured.parameters is None) and configured != Configured():
        raise RequestRefused("A function has one configuration.", advice="Say --config-s3 or --config-ssm.")
    if function and role is not Role.WORKER:
        raise RequestRefused("--lambda is a role of its own.", advice="Leave --role out.")
    for export in exports:
        if not re.fullmatch(r"s3://[^/]+(/.*)?", export):
            raise RequestRefused(f"{export!r} is no place of exports.", advice="Write it as s3://BUCKET/PREFIX.")
    return Asked(
        role=Role.FUNCTION if function else role,
        offline=offline,
        accounts=_accounts(accounts),
        exports=tuple(exports),
        function=name or "replicator" if function else None,
        config_object=None if configured.object is None else object_place(configured.object),
        config_parameters=() if configured.parameters is None else parameter_names(configured.parameters),
        config_key=configured.key,
    )


def _accounts(given: Iterable[str]) -> Mapping[str, str]:
    found = {}
    for text in given:
        match = _ACCOUNT.fullmatch(text)
        if match is None:
            raise RequestRefused(f"{text!r} is no account.", advice="Write it as 111122223333 or us=111122223333.")
        found[match[1] or ""] = match[2]
    return found
