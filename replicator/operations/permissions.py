"""The least that each role must be allowed, per region, for one configuration.

Resources follow from the configuration. The account is taken from the region's tables, from its identity or role, or is
named; keys of customers are known only when the tables can be described.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from replicator.adapters.clients import open_places
from replicator.adapters.kinesis.streams import summary
from replicator.checks.described_tables import describe
from replicator.checks.table_choices import TableFinder
from replicator.checks.world import account_of, tables_by_region
from replicator.domain.errors import ReplicatorError, TableMissing
from replicator.domain.permissions import Resource, Role, Statement, Use, assuming, decrypting, granted
from replicator.operations.errors import RequestRefused
from replicator.settings import AwsSink, OrderedRule, VersionedRule, expanded
from replicator.settings.compiled_rules import kinesis_source
from replicator.settings.events import EventBridgeSink, FirehoseSink, KinesisSink, SnsSink, SqsSink
from replicator.settings.function_places import ObjectPlace

if TYPE_CHECKING:
    from replicator.adapters.aws.clients import Place
    from replicator.settings import RuleSettings, Settings

_Found = TypeVar("_Found")
_AT_ONCE = 16
_PARTITIONS = {
    "cn": "aws-cn",
    "us-gov": "aws-us-gov",
    "us-iso": "aws-iso",
    "us-isob": "aws-iso-b",
    "eu-isoe": "aws-iso-e",
    "us-isof": "aws-iso-f",
    "eusc": "aws-eusc",
}
_SERVICE_DOMAINS = {"aws": "amazonaws.com", "aws-cn": "amazonaws.com.cn", "aws-us-gov": "amazonaws.com"}
_GLOB_CLASS = re.compile(r"\[[^\]]*\]")


@dataclass(frozen=True, slots=True)
class Asked:
    """What policies are asked for. `accounts`: by region id, or one under the empty name for every other region."""

    role: Role = Role.WORKER
    offline: bool = False
    accounts: Mapping[str, str] = field(default_factory=dict)
    exports: Collection[str] = ()
    """`s3://bucket/prefix` of every export that a bootstrap may read."""
    function: str | None = None
    """The name of the Lambda function."""
    config_object: ObjectPlace | None = None
    config_parameters: Collection[str] = ()
    config_key: str | None = None
    """The customer's key that encrypts the object or the parameters."""


@dataclass(frozen=True, slots=True)
class RegionPolicy:
    """What one identity needs: that of a region, or the base identity from which roles are assumed."""

    name: str
    statements: list[Statement]


@dataclass(frozen=True, slots=True)
class Policies:
    """One policy per region, and what their reader must know."""

    policies: list[RegionPolicy]
    notes: list[str]


@dataclass(frozen=True, slots=True)
class _Known:
    """What was learned of a region."""

    account: str | None = None
    keys: frozenset[str] = frozenset()
    missing: tuple[str, ...] = ()
    stream_keys: frozenset[str] = frozenset()
    """Of Kinesis streams that are read, as these name them."""


async def policies(settings: Settings, asked: Asked) -> Policies:
    """A policy per region that the rules use, and one for the base identity when roles are assumed."""
    known = {} if asked.offline else await _look(settings)
    also = Role.OPERATOR if asked.role is Role.WORKER and settings.admin.api.enabled else None
    notes = list(_notes(settings, asked, known))
    made = []
    for region_id in tables_by_region(settings) | {
        region: () for rule in settings.rules for region in (*rule.regions_used, *sorted(rule.regions_of_sinks))
    }:
        account = asked.accounts.get(region_id) or known.get(region_id, _Known()).account
        account = account or _account_of_role(settings, region_id) or asked.accounts.get("")
        if account is None:
            raise RequestRefused(
                f"The account of region {region_id} is not known.",
                advice=f"Add --account {region_id}=NUMBER, or --account NUMBER for every region.",
            )
        statements = granted(asked.role, _uses(settings, asked, region_id, account), also=also)
        aws_region = settings.regions[region_id].region
        domain = _SERVICE_DOMAINS.get(_partition(aws_region), "amazonaws.com")
        found = known.get(region_id, _Known())
        keys = [
            decrypting(found.keys, "dynamodb", aws_region, domain),
            decrypting(_stream_keys(found, asked.role, aws_region, account), "kinesis", aws_region, domain),
            decrypting(
                _config_key(settings, asked, region_id), "s3" if asked.config_object else "ssm", aws_region, domain
            ),
        ]
        made.append(RegionPolicy(region_id, [*statements, *(each for each in keys if each is not None)]))
    roles = [settings.regions[each.name].role_arn for each in made]
    base = assuming(role for role in roles if role is not None)
    return Policies([*made, *([RegionPolicy("base", base)] if base else [])], notes)


def _notes(settings: Settings, asked: Asked, known: Mapping[str, _Known]) -> Iterator[str]:
    if asked.offline:
        yield "--offline: customer managed KMS keys of tables are not looked up; grant kms:Decrypt on them."
    for region_id, what in known.items():
        if what.missing:
            yield f"{', '.join(what.missing)} in {region_id} cannot be described, so keys of theirs are not known."
        for alias in sorted(key for key in what.stream_keys if _is_alias(key)):
            yield f"A Kinesis stream in {region_id} names its key {alias}: grant kms:Decrypt on the key behind it."
    if any(rule.regions_of_sinks for rule in settings.rules):
        yield "KMS keys of queues, topics and streams of events are not looked up; see docs/events.md."
    for rule in settings.rules:
        if rule.choice is not None and rule.choice.glob is None:
            yield f"Rule {rule.name} selects tables by tags alone, so its permissions are granted on every table."


# -- resources -----------------------------------------------------------------------------------------------------


def _uses(settings: Settings, asked: Asked, region_id: str, account: str) -> Iterator[Use]:
    """Every resource of a region that the configuration speaks of; a kind of source or sink adds its own here."""
    aws_region = settings.regions[region_id].region
    arn = f"arn:{_partition(aws_region)}:dynamodb:{aws_region}:{account}:table/"
    for rule in settings.rules:
        yield from _of_rule(rule, region_id, arn, settings.group)
        yield from _of_sinks(rule, region_id, arn)
        if asked.function is not None and region_id in rule.regions_read:
            yield from _of_function(asked, asked.function, arn)
        if region_id == rule.regions_used[0]:
            yield from _exports(asked.exports, _partition(aws_region))
    if any(region_id in rule.regions_written for rule in settings.rules):
        yield Use(Resource.SIDE, f"{arn}{settings.side_table_name}")
    if any(isinstance(rule, OrderedRule) and region_id in rule.regions_written for rule in settings.rules):
        yield Use(Resource.SIDE_OF_REPLICA, f"{arn}{settings.side_table_name}")
    if any(region_id in rule.owed_regions for rule in settings.rules):
        yield Use(Resource.OWED, f"{arn}{settings.owed_table_name}")
    caches = {settings.caches[action.cache].region for rule in settings.rules for action in rule.cache}
    if region_id in caches:
        yield Use(Resource.OWED_TO_CACHES, f"{arn}{settings.owed_table_name}")
    if region_id == settings.coordination.region:
        yield Use(Resource.COORDINATION, f"{arn}{settings.coordination.table}")
        yield Use(Resource.CONFLICTS, f"{arn}{settings.conflict_table_name}")
        yield Use(Resource.CONFLICT_INDEXES, f"{arn}{settings.conflict_table_name}/index/*")


def _of_function(asked: Asked, name: str, arn: str) -> Iterator[Use]:
    yield Use(Resource.LOGS, f"{_of(arn, 'logs')}log-group:/aws/lambda/{name}:*")
    place = asked.config_object
    if place is not None:
        kind = Resource.CONFIG_OBJECT_VERSION if place.version else Resource.CONFIG_OBJECT
        yield Use(kind, f"arn:{arn.split(':')[1]}:s3:::{place.bucket}/{place.key}")
    for parameter in asked.config_parameters:
        named = parameter if parameter.startswith("arn:") else f"{_of(arn, 'ssm')}parameter/{parameter.lstrip('/')}"
        yield Use(Resource.CONFIG_PARAMETER, ":".join(named.split(":")[:6]))  # a version or label is no part of it


def _config_key(settings: Settings, asked: Asked, region_id: str) -> list[str]:
    used = asked.config_key and any(region_id in rule.regions_read for rule in settings.rules)
    return [asked.config_key] if used and asked.config_key else []


def _stream_keys(known: _Known, role: Role, aws_region: str, account: str) -> list[str]:
    """Keys of customers by their ARNs; who sets up reads nothing."""
    if role is Role.SETUP:
        return []
    place = f"arn:{_partition(aws_region)}:kms:{aws_region}:{account}:key/"
    return [key if key.startswith("arn:") else f"{place}{key}" for key in known.stream_keys if not _is_alias(key)]


def _is_alias(key: str) -> bool:
    return key.startswith("alias/") or ":alias/" in key


def _of_rule(rule: RuleSettings, region_id: str, arn: str, group: str) -> Iterator[Use]:
    for table in _tables(rule, region_id, read=True):
        kind = Resource.SOURCE if isinstance(rule, OrderedRule) else _mesh_kind(rule)
        yield Use(kind, f"{arn}{table}")
        if rule.canary is not None:
            yield Use(Resource.CANARY, f"{arn}{table}")
        kinesis = kinesis_source(rule, region_id, group)
        if kinesis is not None:
            if isinstance(rule, OrderedRule) and not kinesis.in_microseconds:
                yield Use(Resource.LOOKED_AT, f"{arn}{table}")
            yield Use(Resource.SENT_TO_KINESIS, f"{arn}{table}")
            stream = f"{_of(arn, 'kinesis')}stream/{kinesis.name}"
            yield Use(Resource.KINESIS, stream)
            if kinesis.group:
                yield Use(Resource.CONSUMED, stream)
                yield Use(Resource.CONSUMER, f"{stream}/consumer/{kinesis.consumer_of(table)}:*")
            continue
        yield Use(Resource.STREAM, f"{arn}{table}/stream/*")
        yield Use(Resource.STREAMS, "*")
    for table in _tables(rule, region_id, read=False):
        yield Use(Resource.REPLICA if isinstance(rule, OrderedRule) else _mesh_kind(rule), f"{arn}{table}")
        if rule.canary is not None:
            yield Use(Resource.CARRIES_CANARY, f"{arn}{table}")
    if rule.choice is not None and region_id == rule.regions_used[0]:
        yield Use(Resource.TABLES, "*")
        if rule.choice.tag:
            yield Use(Resource.CHOSEN_BY_TAG, f"{arn}{_pattern(rule)}")


def _of_sinks(rule: RuleSettings, region_id: str, arn: str) -> Iterator[Use]:
    """Where a rule's events go in a region; a queue by its URL may be another account's."""
    for sink in rule.events:
        if sink.oversize is not None and rule.region_of_bucket(sink) == region_id:
            bucket = f"arn:{arn.split(':')[1]}:s3:::{sink.oversize.s3.bucket}"
            yield Use(Resource.OVERSIZE, f"{bucket}/{sink.oversize.s3.folder}*")
            yield Use(Resource.OVERSIZE_BUCKET, bucket)
        if not isinstance(sink, AwsSink) or region_id not in rule.regions_of(sink):
            continue
        match sink:
            case SqsSink():
                place = _of(arn, "sqs")
                account = sink.queue.rstrip("/").rsplit("/", 2)[-2:][0]
                if account.isdecimal():
                    place = ":".join([*place.split(":")[:4], account, ""])
                yield Use(Resource.QUEUE, f"{place}{sink.place}")
            case SnsSink():
                yield Use(Resource.TOPIC, sink.topic)
            case EventBridgeSink():
                yield Use(Resource.BUS, f"{_of(arn, 'events')}event-bus/{sink.bus}")
            case KinesisSink():
                yield Use(Resource.EVENT_STREAM, f"{_of(arn, 'kinesis')}stream/{sink.stream}")
            case FirehoseSink():
                yield Use(Resource.DELIVERY, f"{_of(arn, 'firehose')}deliverystream/{sink.stream}")


def _mesh_kind(rule: RuleSettings) -> Resource:
    return Resource.VERSIONED if isinstance(rule, VersionedRule) else Resource.ACTIVE


def _tables(rule: RuleSettings, region_id: str, *, read: bool) -> list[str]:
    """Names, or the pattern, of the tables in a region that a rule reads, or writes."""
    if rule.choice is not None:
        return [_pattern(rule)] if region_id in (rule.regions_read if read else rule.regions_written) else []
    return [table for region, table in (rule.sources if read else rule.replica_tables) if region == region_id]


def _pattern(rule: RuleSettings) -> str:
    """A choice as IAM can write it: it knows `*` and `?`, and no classes of characters."""
    assert rule.choice is not None, "only choices have patterns"
    return _GLOB_CLASS.sub("?", rule.choice.glob or "*")


def _exports(exports: Collection[str], partition: str) -> Iterator[Use]:
    for export in exports:
        bucket, _, prefix = export.removeprefix("s3://").partition("/")
        yield Use(Resource.EXPORT, f"arn:{partition}:s3:::{bucket}/{prefix.rstrip('/')}{'/' if prefix else ''}*")
        yield Use(Resource.EXPORT_BUCKET, f"arn:{partition}:s3:::{bucket}")


def _of(arn: str, service: str) -> str:
    """The beginning of an ARN of another service in the same region and account."""
    parts = arn.split(":")
    return ":".join([*parts[:2], service, *parts[3:5], ""])


def _partition(aws_region: str) -> str:
    parts = aws_region.split("-")
    return _PARTITIONS.get("-".join(parts[:2])) or _PARTITIONS.get(parts[0]) or "aws"


def _account_of_role(settings: Settings, region_id: str) -> str | None:
    role = settings.regions[region_id].role_arn
    parts = role.split(":") if role is not None else []
    return parts[4] if len(parts) > 5 else None  # noqa: PLR2004 - arn:partition:iam::account:role/name


# -- the world -----------------------------------------------------------------------------------------------------


async def _look(settings: Settings) -> dict[str, _Known]:
    """Accounts and keys, as far as tables and identities show them."""
    async with open_places(settings) as places:
        chosen = await TableFinder(settings, places).look()
        wanted = tables_by_region(expanded(settings, chosen.tables))
        found = await asyncio.gather(
            *(_look_at(places[region], tables, _kinesis(settings, region)) for region, tables in wanted.items())
        )
    return dict(zip(wanted, found, strict=True))


def _kinesis(settings: Settings, region: str) -> list[str]:
    """The Kinesis streams that are read in a region."""
    sources = (kinesis_source(rule, region, settings.group) for rule in settings.rules)
    return sorted({source.stream for source in sources if source is not None})


async def _look_at(place: Place, names: list[str], streams: list[str]) -> _Known:
    slots = asyncio.Semaphore(_AT_ONCE)

    async def one(look: Callable[[Place, str], Awaitable[_Found]], name: str) -> _Found | ReplicatorError:
        async with slots:
            try:
                return await look(place, name)
            except ReplicatorError as error:
                return error

    answers = dict(zip(names, await asyncio.gather(*(one(describe, name) for name in names)), strict=True))
    described = await asyncio.gather(*(one(summary, name) for name in streams))
    keys = {each.key for each in described if not isinstance(each, ReplicatorError) and each.key}
    tables = [answer for answer in answers.values() if not isinstance(answer, ReplicatorError)]
    missing = [name for name, answer in answers.items() if isinstance(answer, ReplicatorError)]
    account = next((table.account for table in tables if table.account), None) or (await account_of(place))[0]
    unreadable = [name for name in missing if not isinstance(answers[name], TableMissing)]
    unreadable += [name for name, each in zip(streams, described, strict=True) if isinstance(each, ReplicatorError)]
    own = frozenset(key for key in keys if not key.removeprefix("arn:").endswith("alias/aws/kinesis"))
    return _Known(account, frozenset(table.key_arn for table in tables if table.key_arn), tuple(unreadable), own)
