"""Which actions each role needs on each kind of resource, and the statements of a policy that grant them.

Invariant: `NEEDS` is the only place that says so. What a recorded run of the program asks of AWS is compared with it in
both directions: nothing that is used is missing, and nothing that is granted is unused. A new kind of resource, such as
that of another source or of a sink, is a member of `Resource`, a row of `NEEDS`, and a use that
`operations/permissions.py` derives from the configuration.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from msgspec import Struct

EVERYTHING = "*"


class Role(enum.StrEnum):
    """Who is granted something."""

    WORKER = "worker"
    """`run`, and `check`, which proves what `run` needs."""
    OPERATOR = "operator"
    """Every command beside a running group, jobs that they do themselves when no worker lives among them."""
    SETUP = "setup"
    """`init` and `uninstall`: they make and remove what is kept beside the users' tables."""
    FUNCTION = "function"
    """The Lambda function, and the event source mapping that drives it."""


class Resource(enum.StrEnum):
    """What an action is asked of."""

    SOURCE = "source"
    """A table that a rule of mode `ordered` reads."""
    LOOKED_AT = "looked at"
    """The same, where the times of its changes do not tell their order."""
    REPLICA = "replica"
    """A table that such a rule writes."""
    VERSIONED = "versioned"
    """A table of a mesh of mode `versioned`."""
    ACTIVE = "active-active"
    """A table of a mesh of mode `active-active`."""
    CANARY = "canary"
    """A table that a rule's canary is written in."""
    CARRIES_CANARY = "carries canary"
    """A table that it arrives in."""
    STREAM = "stream"
    SENT_TO_KINESIS = "sent to kinesis"
    """A table whose changes a rule reads in a Kinesis stream."""
    KINESIS = "kinesis"
    """That stream."""
    CONSUMED = "consumed"
    """That stream, when its shards are pushed."""
    CONSUMER = "consumer"
    """The consumer to which they are."""
    STREAMS = "streams"
    """The list of a table's streams."""
    TABLES = "tables"
    """The list of tables, for rules that choose theirs."""
    CHOSEN_BY_TAG = "chosen by tag"
    """A table that such a rule asks for its tags."""
    SIDE = "side"
    SIDE_OF_REPLICA = "side of a replica"
    """The side table of a region that a rule of mode `ordered` writes: transactions check it."""
    OWED = "owed"
    OWED_TO_CACHES = "owed to caches"
    COORDINATION = "coordination"
    CONFLICTS = "conflicts"
    CONFLICT_INDEXES = "conflict indexes"
    EXPORT = "export"
    """The objects of a table's export."""
    EXPORT_BUCKET = "export bucket"
    QUEUE = "queue"
    """A queue that events go to, as the next four."""
    TOPIC = "topic"
    BUS = "bus"
    EVENT_STREAM = "event stream"
    DELIVERY = "delivery stream"
    OVERSIZE = "oversize"
    """Objects with the data of events that are too long, and the bucket that takes them."""
    OVERSIZE_BUCKET = "oversize bucket"
    LOGS = "logs"
    """The log group of a function."""
    CONFIG_OBJECT = "config object"
    """An object of S3 that holds a function's configuration; the next: one version of it."""
    CONFIG_OBJECT_VERSION = "config object version"
    CONFIG_PARAMETER = "config parameter"


TAKES_NO_RESOURCE = {Resource.STREAMS: "ListStreamsTakesNoResource", Resource.TABLES: "ListTablesTakesNoResource"}
"""Kinds whose action AWS grants on `*` alone, and how the statement says so."""


def _dynamodb(actions: str) -> tuple[str, ...]:
    return tuple(f"dynamodb:{action}" for action in actions.split())


def _sink(sent: str, looked_at: str) -> Mapping[Role, tuple[str, ...]]:
    """Operators send what was parked; `check` looks."""
    send = tuple(sent.split())
    return {Role.WORKER: (*send, looked_at), Role.OPERATOR: send, Role.FUNCTION: send}


def _kinesis(actions: str) -> tuple[str, ...]:
    return tuple(f"kinesis:{action}" for action in actions.split())


_READ = "DescribeTable GetItem BatchGetItem Scan"
_WRITTEN = f"{_READ} PutItem DeleteItem"
_OWED = "GetItem PutItem UpdateItem DeleteItem Query"
_DEBT = "GetItem BatchWriteItem DeleteItem Query"
_STREAM = _dynamodb("DescribeStream GetShardIterator GetRecords")
_CREATED = "CreateTable DescribeTable DescribeTimeToLive UpdateTimeToLive"

_CONSUMED = {
    **dict.fromkeys((Role.WORKER, Role.FUNCTION), _kinesis("DescribeStreamConsumer SubscribeToShard")),
    Role.SETUP: _kinesis("RegisterStreamConsumer DescribeStreamConsumer DeregisterStreamConsumer"),
}

NEEDS: Mapping[Resource, Mapping[Role, tuple[str, ...]]] = {
    Resource.SOURCE: {
        Role.WORKER: _dynamodb(f"{_READ} DescribeTimeToLive"),
        Role.OPERATOR: _dynamodb(f"{_READ} PutItem DeleteItem"),  # `conflicts promote` writes there
        Role.SETUP: _dynamodb("DescribeTable UpdateTable"),
        Role.FUNCTION: _dynamodb("DescribeTable"),
    },
    Resource.LOOKED_AT: {Role.FUNCTION: _dynamodb("GetItem")},
    Resource.REPLICA: {
        Role.WORKER: _dynamodb(f"{_WRITTEN} DescribeTimeToLive"),
        Role.OPERATOR: _dynamodb(_WRITTEN),
        Role.SETUP: _dynamodb("CreateTable DescribeTable Scan UpdateItem"),  # `init --replicas`, `uninstall`
        Role.FUNCTION: _dynamodb("DescribeTable GetItem PutItem DeleteItem"),
    },
    Resource.VERSIONED: {
        Role.WORKER: _dynamodb(f"{_WRITTEN} DescribeTimeToLive"),
        Role.OPERATOR: _dynamodb(_WRITTEN),
        Role.SETUP: _dynamodb("DescribeTable UpdateTable"),
        Role.FUNCTION: _dynamodb("DescribeTable GetItem PutItem DeleteItem"),
    },
    Resource.ACTIVE: {
        Role.WORKER: _dynamodb(f"{_WRITTEN} UpdateItem DescribeTimeToLive"),
        Role.OPERATOR: _dynamodb(f"{_WRITTEN} UpdateItem"),
        Role.SETUP: _dynamodb("DescribeTable UpdateTable Scan UpdateItem"),
        Role.FUNCTION: _dynamodb("DescribeTable GetItem PutItem UpdateItem DeleteItem"),
    },
    # DeleteItem: `uninstall`.
    Resource.CANARY: {Role.WORKER: _dynamodb("PutItem"), Role.SETUP: _dynamodb("DescribeTable DeleteItem")},
    Resource.CARRIES_CANARY: {Role.SETUP: _dynamodb("DeleteItem")},
    Resource.STREAM: {
        Role.WORKER: _STREAM,
        Role.OPERATOR: _dynamodb("DescribeStream"),
        Role.FUNCTION: _STREAM,
    },
    Resource.SENT_TO_KINESIS: {
        Role.WORKER: _dynamodb("DescribeKinesisStreamingDestination"),
        Role.SETUP: _dynamodb("DescribeKinesisStreamingDestination EnableKinesisStreamingDestination"),
        Role.FUNCTION: _dynamodb("DescribeKinesisStreamingDestination"),
    },
    Resource.KINESIS: {
        Role.WORKER: _kinesis("DescribeStreamSummary ListShards GetShardIterator GetRecords"),
        Role.OPERATOR: _kinesis("DescribeStreamSummary ListShards GetShardIterator GetRecords"),
        Role.SETUP: _kinesis("DescribeStreamSummary"),
        # Some of it is asked by the event source mapping.
        Role.FUNCTION: _kinesis("DescribeStream DescribeStreamSummary ListShards GetShardIterator GetRecords"),
    },
    # Calls name the stream and the consumer: both have to be granted.
    Resource.CONSUMED: _CONSUMED,
    Resource.CONSUMER: _CONSUMED,
    Resource.STREAMS: dict.fromkeys((Role.WORKER, Role.FUNCTION), _dynamodb("ListStreams")),
    Resource.TABLES: dict.fromkeys(Role, _dynamodb("ListTables")),
    Resource.CHOSEN_BY_TAG: dict.fromkeys(Role, _dynamodb("DescribeTable ListTagsOfResource")),
    Resource.SIDE: {
        Role.WORKER: _dynamodb("DescribeTable DescribeTimeToLive GetItem UpdateItem"),
        Role.OPERATOR: _dynamodb("GetItem UpdateItem"),
        Role.SETUP: _dynamodb(f"{_CREATED} Scan GetItem DeleteItem"),
        Role.FUNCTION: _dynamodb("DescribeTable GetItem UpdateItem"),
    },
    Resource.SIDE_OF_REPLICA: dict.fromkeys(
        (Role.WORKER, Role.OPERATOR, Role.FUNCTION), _dynamodb("ConditionCheckItem")
    ),
    Resource.OWED: {
        Role.WORKER: _dynamodb(f"{_OWED} DescribeTable DescribeTimeToLive"),
        Role.OPERATOR: _dynamodb("GetItem PutItem DeleteItem Query"),
        Role.SETUP: _dynamodb(f"{_CREATED} Query DeleteItem"),
        Role.FUNCTION: _dynamodb(f"{_OWED} DescribeTable"),
    },
    Resource.OWED_TO_CACHES: {
        Role.WORKER: _dynamodb(f"{_DEBT} DescribeTable DescribeTimeToLive"),
        Role.OPERATOR: _dynamodb("GetItem Query"),
        Role.SETUP: _dynamodb(_CREATED),
        Role.FUNCTION: _dynamodb(f"{_DEBT} DescribeTable"),
    },
    Resource.COORDINATION: {
        Role.WORKER: _dynamodb("DescribeTable DescribeTimeToLive GetItem UpdateItem DeleteItem Query"),
        Role.OPERATOR: _dynamodb("GetItem UpdateItem DeleteItem Query"),
        Role.SETUP: _dynamodb("CreateTable DescribeTable GetItem UpdateItem DeleteItem Query"),
        Role.FUNCTION: _dynamodb("DescribeTable GetItem UpdateItem Query"),
    },
    Resource.CONFLICTS: {
        Role.WORKER: _dynamodb("DescribeTable DescribeTimeToLive PutItem"),
        Role.OPERATOR: _dynamodb("PutItem GetItem Scan"),
        Role.SETUP: _dynamodb(_CREATED),
        Role.FUNCTION: _dynamodb("DescribeTable PutItem"),
    },
    Resource.CONFLICT_INDEXES: {Role.OPERATOR: _dynamodb("Query")},
    Resource.EXPORT: dict.fromkeys((Role.WORKER, Role.OPERATOR), ("s3:GetObject",)),
    Resource.EXPORT_BUCKET: dict.fromkeys((Role.WORKER, Role.OPERATOR), ("s3:ListBucket",)),
    Resource.OVERSIZE: dict.fromkeys((Role.WORKER, Role.OPERATOR, Role.FUNCTION), ("s3:PutObject",)),
    Resource.OVERSIZE_BUCKET: {Role.WORKER: ("s3:ListBucket",)},
    Resource.QUEUE: _sink("sqs:SendMessage sqs:GetQueueUrl", "sqs:GetQueueAttributes"),
    Resource.TOPIC: _sink("sns:Publish", "sns:GetTopicAttributes"),
    Resource.BUS: _sink("events:PutEvents", "events:DescribeEventBus"),
    Resource.EVENT_STREAM: _sink("kinesis:PutRecords", "kinesis:DescribeStreamSummary"),
    Resource.DELIVERY: _sink("firehose:PutRecordBatch", "firehose:DescribeDeliveryStream"),
    Resource.LOGS: {Role.FUNCTION: ("logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents")},
    Resource.CONFIG_OBJECT: {Role.FUNCTION: ("s3:GetObject",)},
    Resource.CONFIG_OBJECT_VERSION: {Role.FUNCTION: ("s3:GetObjectVersion",)},
    Resource.CONFIG_PARAMETER: {Role.FUNCTION: ("ssm:GetParameter",)},
}


class Use(Struct, frozen=True):
    """One resource that a configuration speaks of, by its ARN."""

    kind: Resource
    arn: str


class Statement(Struct, frozen=True):
    """What one statement allows. `sid` says why, where that does not follow from the rest."""

    actions: tuple[str, ...]
    resources: tuple[str, ...]
    sid: str = ""
    condition: tuple[str, str, str] | None = None
    """(operator, key, value)."""

    @property
    def document(self) -> dict[str, Any]:
        """As a policy writes it."""
        shown: dict[str, Any] = {"Sid": self.sid} if self.sid else {}
        shown |= {"Effect": "Allow", "Action": list(self.actions), "Resource": list(self.resources)}
        if self.condition is not None:
            operator, key, value = self.condition
            shown["Condition"] = {operator: {key: value}}
        return shown


def granted(role: Role, uses: Iterable[Use], *, also: Role | None = None) -> list[Statement]:
    """The fewest statements that grant a role what it needs: resources that need the same share one.

    `also`: a role whose work it does, too.
    """
    needed: dict[str, dict[str, None]] = {}
    unbounded: dict[str, tuple[str, ...]] = {}
    for use in uses:
        needs = NEEDS[use.kind]
        actions = (*needs.get(role, ()), *(needs.get(also, ()) if also is not None else ()))
        if use.kind in TAKES_NO_RESOURCE:
            unbounded |= {TAKES_NO_RESOURCE[use.kind]: tuple(dict.fromkeys(actions))} if actions else {}
        elif actions:
            needed.setdefault(use.arn, {}).update(dict.fromkeys(actions))
    resources: dict[tuple[str, ...], list[str]] = {}
    for arn, actions_of in needed.items():
        resources.setdefault(tuple(sorted(actions_of)), []).append(arn)
    return [
        *(Statement(actions, tuple(sorted(arns))) for actions, arns in sorted(resources.items())),
        *(Statement(actions, (EVERYTHING,), sid=sid) for sid, actions in sorted(unbounded.items())),
    ]


def decrypting(keys: Iterable[str], service: str, region: str, service_domain: str) -> Statement | None:
    """The use of keys of customers, through one service alone; None when there are none."""
    arns = tuple(sorted(set(keys)))
    via = ("StringEquals", "kms:ViaService", f"{service}.{region}.{service_domain}")
    return Statement(("kms:Decrypt",), arns, condition=via) if arns else None


def assuming(roles: Iterable[str]) -> list[Statement]:
    """What the base identity needs, from which roles of regions are assumed."""
    arns = tuple(sorted(set(roles)))
    return [Statement(("sts:AssumeRole",), arns)] if arns else []


# -- how a policy is written ---------------------------------------------------------------------------------------


def policy_document(statements: Iterable[Statement]) -> dict[str, Any]:
    """A policy as IAM takes it."""
    return {"Version": "2012-10-17", "Statement": [statement.document for statement in statements]}


def terraform(label: str, name: str, statements: Iterable[Statement]) -> str:
    """The same as a data source of Terraform, and a policy made of it."""
    return "\n".join(_lines(label, name, statements)) + "\n"


def _lines(label: str, name: str, statements: Iterable[Statement]) -> Iterator[str]:
    yield f'data "aws_iam_policy_document" "{label}" {{'
    for statement in statements:
        yield "  statement {"
        if statement.sid:
            yield f"    sid       = {_quoted(statement.sid)}"
        yield f"    actions   = [{', '.join(map(_quoted, statement.actions))}]"
        yield f"    resources = [{', '.join(map(_quoted, statement.resources))}]"
        if statement.condition is not None:
            operator, key, value = statement.condition
            yield from (
                "    condition {",
                f"      test     = {_quoted(operator)}",
                f"      variable = {_quoted(key)}",
                f"      values   = [{_quoted(value)}]",
                "    }",
            )
        yield "  }"
    yield from (
        "}",
        "",
        f'resource "aws_iam_policy" "{label}" {{',
        f"  name   = {_quoted(name)}",
        f"  policy = data.aws_iam_policy_document.{label}.json",
        "}",
    )


def _quoted(text: str) -> str:
    """A string of HCL; nothing in it is an expression."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("${", "$${").replace("%{", "%%{")
    return f'"{escaped}"'
