"""Everything but streams passes through to MiniStack; on the way the laboratory learns which tables have streams.

Invariant: a table's description names the laboratory's present stream, made by any caller.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from replicator.laboratory.streamlab.changes import Change
from replicator.laboratory.streamlab.options import Options
from replicator.laboratory.streamlab.refusals import ServiceError
from replicator.laboratory.streamlab.stream import LabStream
from replicator.laboratory.streamlab.tables import VIEW, LabTable, Scope, Tables
from replicator.laboratory.streamlab.tail import Tail
from replicator.laboratory.streamlab.upstream import OK, Call, Passed, Upstream

DEFAULT_ACCOUNT: Final = "000000000000"
_ON: Final = {"StreamEnabled": True, "StreamViewType": VIEW}
_ACCOUNT_DIGITS: Final = 12
_DESCRIBING: Final = frozenset({"CreateTable", "DescribeTable", "UpdateTable", "DeleteTable"})
_WRITING: Final = frozenset(
    {
        "PutItem",
        "UpdateItem",
        "DeleteItem",
        "BatchWriteItem",
        "TransactWriteItems",
        "ExecuteStatement",
        "BatchExecuteStatement",
        "ExecuteTransaction",
    }
)


@dataclass(slots=True)
class Gateway:
    """The way through, and the followers of MiniStack's streams. `start` runs a coroutine until the end."""

    upstream: Upstream
    tables: Tables
    options: Options
    start: Callable[[Any, str], object]
    tails: dict[str, tuple[LabTable, Tail]] = field(default_factory=dict)
    """By the ARN of MiniStack's stream."""
    _accounts: dict[str, str] = field(default_factory=dict)
    """Account by access key, as far as MiniStack answered."""

    def scope(self, access_key: str, region: str) -> Scope:
        """Whose tables a caller means. MiniStack takes twelve digits for an account."""
        own = access_key if len(access_key) == _ACCOUNT_DIGITS and access_key.isdecimal() else DEFAULT_ACCOUNT
        return Scope(self._accounts.get(access_key, own), region, access_key)

    async def passed(self, call: Call, scope: Scope) -> Passed:
        """Pass a call through."""
        try:
            answer = await self.upstream.forward(call)
        except ServiceError:
            if (made := self._made_description(call, scope)) is None:
                raise
            return made
        if call.operation in _WRITING:
            self._wake(scope)
        elif call.operation in _DESCRIBING:
            return self._described(answer, call, scope)
        return answer

    def _wake(self, scope: Scope) -> None:
        for table, tail in self.tails.values():
            if table.scope.place == scope.place:
                tail.wake()

    # -- descriptions ----------------------------------------------------------------------------------------------

    def _described(self, answer: Passed, call: Call, scope: Scope) -> Passed:
        if answer.status != OK:
            return self._made_description(call, scope) or answer
        document = msgspec.json.decode(answer.body)
        description = document.get("Table") or document.get("TableDescription")
        if not description:
            return answer
        table = self.learned(description, scope)
        if table is None or table.latest is None or call.operation == "DeleteTable":
            return answer
        if table.made:
            description["StreamSpecification"] = _ON
        elif not (description.get("StreamSpecification") or {}).get("StreamEnabled"):
            return answer
        if table.present is None:
            del description["StreamSpecification"]
        description["LatestStreamArn"], description["LatestStreamLabel"] = table.latest.arn, table.latest.label
        return Passed(answer.status, answer.headers, msgspec.json.encode(document))

    def _made_description(self, call: Call, scope: Scope) -> Passed | None:
        """A table that exists in the laboratory only, if that was asked for."""
        name = msgspec.json.decode(call.body).get("TableName", "") if call.operation == "DescribeTable" else ""
        table = self.tables.find(scope, name)
        if table is None or not table.made or table.latest is None:
            return None
        account, region = scope.place
        described = {
            "TableName": name,
            "TableArn": f"arn:aws:dynamodb:{region}:{account}:table/{name}",
            "TableStatus": "ACTIVE",
            "KeySchema": table.key_schema,
            "AttributeDefinitions": [
                {"AttributeName": key["AttributeName"], "AttributeType": "S"} for key in table.key_schema
            ],
            "CreationDateTime": round(table.streams[0].created_at, 3),
            "BillingModeSummary": {"BillingMode": "PAY_PER_REQUEST"},
            "StreamSpecification": _ON if table.present is not None else {"StreamEnabled": False},
            "LatestStreamArn": table.latest.arn,
            "LatestStreamLabel": table.latest.label,
        }
        headers = {"Content-Type": "application/x-amz-json-1.0", "x-amz-crc32": ""}
        return Passed(OK, headers, msgspec.json.encode({"Table": described}))

    # -- learning --------------------------------------------------------------------------------------------------

    def learned(self, description: dict[str, Any], scope: Scope) -> LabTable | None:
        """The table of a description, followed from now on; None when it has no stream."""
        account = str(description.get("TableArn", "")).split(":")[4:5]
        if account:
            self._accounts[scope.access_key] = account[0]
            scope = Scope(account[0], scope.region, scope.access_key)
        name = description["TableName"]
        table, arn = self.tables.find(scope, name), description.get("LatestStreamArn")
        specification = description.get("StreamSpecification") or {}
        if (table is not None and table.made) or not arn or not specification.get("StreamEnabled"):
            return table
        table = table or self.tables.add(scope, name, None)
        if arn not in self.tails:
            table.view = specification.get("StreamViewType", VIEW)
            table.key_schema = description.get("KeySchema") or table.key_schema
            stream = self.tables.begin(table, label=description["LatestStreamLabel"])
            table.present = stream
            self._follow(table, arn, stream)
        return table

    def _follow(self, table: LabTable, arn: str, stream: LabStream) -> None:
        """Follow a stream of MiniStack. While it is the table's newest one, what comes goes to the present stream."""

        def target() -> LabStream | None:
            newest = next(reversed([known for known, (one, _) in self.tails.items() if one is table]), None)
            return table.present if newest == arn else stream

        def deliver(changes: list[Change]) -> None:
            self.tables.record(table, target(), changes)

        def ended() -> None:
            closing = target()
            if closing is not None and closing.closed_at is None:
                closing.close(self.tables.clock.now())
            if closing is table.present:
                table.present = None

        tail = Tail(self.upstream, table.scope, arn, table.partition_key, self.options, deliver, ended)
        self.tails[arn] = (table, tail)
        self.start(tail.run(), f"tail-{table.name}")

    async def discover(self, scope: Scope, name: str | None = None) -> None:
        """Get to know the tables that have a stream: one of them, or all."""
        if not self.upstream.url:
            return
        names = {name} if name else set(await self._streaming(scope))
        for each in sorted(one for one in names if one and self.tables.find(scope, one) is None):
            try:
                answer = await self.upstream.call(scope, "DescribeTable", {"TableName": each})
            except ServiceError:
                continue
            self.learned(msgspec.json.decode(answer)["Table"], scope)

    async def streaming(self, scope: Scope, name: str) -> LabTable:
        """A table whose changes are followed from now on, whether it had a stream before or not."""
        table = self.tables.find(scope, name)
        if table is None:
            answer = await self.upstream.call(scope, "DescribeTable", {"TableName": name})
            description = msgspec.json.decode(answer)["Table"]
            if not (description.get("StreamSpecification") or {}).get("StreamEnabled"):
                asked = {"TableName": name, "StreamSpecification": _ON}
                answer = await self.upstream.call(scope, "UpdateTable", asked)
                description = msgspec.json.decode(answer)["TableDescription"]
            table = self.learned(description, scope)
        assert table is not None, "it has a stream now"
        return table

    async def _streaming(self, scope: Scope) -> list[str]:
        answer = await self.upstream.call(scope, "ListStreams", {}, "DynamoDBStreams_20120810")
        return [stream["TableName"] for stream in msgspec.json.decode(answer)["Streams"]]

    async def settled(self, table: LabTable | None = None) -> None:
        """Wait until all that was written by now is in the laboratory's streams."""
        async with asyncio.TaskGroup() as group:
            for one, tail in list(self.tails.values()):
                if table is None or one is table:
                    group.create_task(tail.settled(), name=f"settle-{one.name}")
