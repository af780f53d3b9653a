"""What a program asks of AWS, written down on the way: which action on which resource of which region."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.cli.proxy import PATH, serving

_IN_TRANSACTIONS = {
    "Put": "PutItem",
    "Update": "UpdateItem",
    "Delete": "DeleteItem",
    "ConditionCheck": "ConditionCheckItem",
}
_WITHOUT_PERMISSION = frozenset({"GetCallerIdentity"})  # STS lets every identity ask who it is


@dataclass(frozen=True, order=True)
class Asked:
    """One permission that a request needs; the resource is the end of an ARN, or `*`."""

    region: str
    action: str
    resource: str


@dataclass
class Recorder:
    """An endpoint that passes everything on; `asked`: what the requests needed."""

    url: str = ""
    asked: set[Asked] = field(default_factory=set)
    _streams: dict[str, str] = field(default_factory=dict)

    def take(self, headers: Mapping[str, str], sent: bytes, answered: bytes) -> None:
        operation = headers.get("X-Amz-Target", "").rpartition(".")[2] or _queried(sent)
        scope = re.search(r"Credential=[^/]+/\d+/([a-z0-9-]+)/([a-z0-9]+)/", headers.get("Authorization", ""))
        assert scope is not None, operation
        if operation in _WITHOUT_PERMISSION and sent and scope[2] != "s3":
            return
        if scope[2] in _OTHERS:
            self.asked.add(Asked(scope[1], *_OTHERS[scope[2]](headers[PATH], sent)))
            return
        if scope[2] in _SINKS:
            self.asked.add(_of_sink(scope[1], scope[2], operation, sent))
            return
        request = json.loads(sent)
        if operation in {"GetShardIterator", "GetRecords"}:
            stream = request.get("StreamArn") or self._streams[request["ShardIterator"]]
            request = {"StreamArn": stream}
            answer = json.loads(answered)
            following = answer.get("ShardIterator") or answer.get("NextShardIterator")
            if following:
                self._streams[following] = stream
        self.asked |= {
            Asked(scope[1], f"dynamodb:{action}", resource) for action, resource in _needed(operation, request)
        }


def _queried(sent: bytes) -> str:
    return parse_qs(sent.decode()).get("Action", ["GetCallerIdentity"])[0]


def _of_sink(region: str, service: str, operation: str, sent: bytes) -> Asked:
    """A call of a service that takes events; its batch calls need the permission of single ones."""
    request: dict[str, Any] = (
        {name: one for name, (one,) in parse_qs(sent.decode()).items()} if service == "sns" else json.loads(sent)
    )
    if operation == "PutEvents":
        request = {"Name": request["Entries"][0]["EventBusName"] if request["Entries"] else ""}
    place = next(str(request[name]) for name in _PLACES if name in request)
    ending = place.rpartition("/")[2].rpartition(":")[2]
    return Asked(region, f"{service}:{_SINGLE.get(operation, operation)}", f"{_SINKS[service]}{ending or '*'}")


def _of_objects(path: str, sent: bytes) -> tuple[str, str]:
    """S3 is asked by paths; one version of an object is another permission."""
    parts = urlsplit(path)
    query = parse_qs(parts.query)
    name = unquote(parts.path).strip("/")
    if "list-type" in query or "/" not in name:
        return "s3:ListBucket", name
    if sent:
        return "s3:PutObject", name
    return f"s3:GetObject{'Version' if 'versionId' in query else ''}", name


def _of_parameters(_: str, sent: bytes) -> tuple[str, str]:
    name = json.loads(sent)["Name"].split(":")[0]
    return "ssm:GetParameter", f"parameter/{name.lstrip('/')}"


def _of_roles(_: str, sent: bytes) -> tuple[str, str]:
    request = parse_qs(sent.decode())
    return f"sts:{request['Action'][0]}", request["RoleArn"][0].split(":", 5)[5]


_OTHERS: Mapping[str, Callable[[str, bytes], tuple[str, str]]] = {
    "s3": _of_objects,
    "ssm": _of_parameters,
    "sts": _of_roles,
}
_SINKS = {
    "sqs": "",
    "sns": "",
    "events": "event-bus/",
    "kinesis": "stream/",
    "firehose": "deliverystream/",
}
_PLACES = ("QueueUrl", "QueueName", "TopicArn", "StreamName", "DeliveryStreamName", "Name")
_SINGLE = {"SendMessageBatch": "SendMessage", "PublishBatch": "Publish"}


def _needed(operation: str, request: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if operation == "TransactWriteItems":
        for item in request["TransactItems"]:
            ((verb, body),) = item.items()
            yield _IN_TRANSACTIONS[verb], f"table/{body['TableName']}"
    elif operation == "BatchGetItem":
        yield from ((operation, f"table/{table}") for table in request["RequestItems"])
    elif operation in {"ListTables", "ListStreams"}:
        yield operation, "*"
    elif "StreamArn" in request or "ResourceArn" in request:
        yield operation, (request.get("StreamArn") or request["ResourceArn"]).split(":", 5)[5]
    else:
        index = f"/index/{request['IndexName']}" if "IndexName" in request else ""
        yield operation, f"table/{request['TableName']}{index}"


@contextmanager
def recording(upstream: str) -> Iterator[Recorder]:
    """Serve in a thread."""
    recorder = Recorder()
    with serving(upstream) as server:
        recorder.url, server.after = server.url, recorder.take
        yield recorder
