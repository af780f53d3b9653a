"""Calls about single rows with the client and without it: the same answers, the same errors, and nothing twice."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError

from replicator.domain.errors import Unreachable
from replicator.laboratory.servers import clean_environment
from tests.contract.fault_server import Server, answer, error, serving
from tests.contract.worlds import create_table, fresh, no_fallback, place

Call = tuple[str, dict[str, Any]]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in clean_environment().items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)


def key(sort: str) -> dict[str, Any]:
    return {"pk": {"S": "p"}, "sk": {"S": sort}}


def sets(sort: str, value: Any, **more: Any) -> Call:
    named = {"ExpressionAttributeNames": {"#v": "v"}, "ExpressionAttributeValues": {":v": value}}
    return "update_item", {"Key": key(sort), "UpdateExpression": "SET #v = :v", **named, **more}


NEW, FREE = {"ReturnValues": "ALL_NEW"}, {"ConditionExpression": "attribute_not_exists(#v)"}
CALLS: list[Call] = [
    sets("a", {"N": "1.50"}, **NEW),
    sets("b", {"B": b"\x00\xff binary"}, **NEW),
    sets("c", {"BS": [b"\x01", b"\x02"]}, **NEW),
    sets("d", {"M": {"é": {"L": [{"BOOL": True}, {"NULL": True}, {"B": b"\x03"}]}}}, **NEW),
    sets("a", {"S": "again"}, **FREE),
    sets("b", {"S": "again"}, **FREE, ReturnValuesOnConditionCheckFailure="ALL_OLD"),
    ("get_item", {"Key": key("b"), "ConsistentRead": True}),
    ("get_item", {"Key": key("none"), "ConsistentRead": True}),
    ("delete_item", {"Key": key("d"), "ConditionExpression": "attribute_exists(pk)"}),
    ("delete_item", {"Key": key("d"), "ConditionExpression": "attribute_exists(pk)"}),
    ("query", {"KeyConditionExpression": "pk = :p", "ExpressionAttributeValues": {":p": {"S": "p"}}, "Limit": 2}),
    ("query", {"KeyConditionExpression": "nonsense"}),
]


async def outcome(client: Any, table: str | None, call: Call) -> Any:
    operation, parameters = call
    named = {} if table is None else {"TableName": table}
    try:
        found = await getattr(client, operation)(**named, **parameters)
    except ClientError as refused:
        code, reasons = refused.response["Error"]["Code"], refused.response.get("CancellationReasons", [])
        return code, [reason.get("Code") for reason in reasons], refused.response.get("Item")
    assert found["ResponseMetadata"]["HTTPHeaders"]["date"]
    return {name: value for name, value in found.items() if name != "ResponseMetadata"}


@pytest.mark.servers
async def test_rows_are_the_same_with_the_client_and_without_it(dynamodb_url: str) -> None:
    found = []
    for lean in (None, no_fallback):
        async with place(dynamodb_url, lean=lean) as opened, opened.beside(4) as rows:
            table = fresh("rows")
            await create_table(rows, table, {"pk": "S", "sk": "S"})
            outcomes = [await outcome(rows, table, call) for call in CALLS]
            refused = {"TableName": table, **sets("a", {"S": "x"}, **FREE)[1]}
            outcomes.append(
                await outcome(rows, None, ("transact_write_items", {"TransactItems": [{"Update": refused}]}))
            )
            found.append(outcomes)
    assert found[0] == found[1]
    assert found[1][4] == ("ConditionalCheckFailedException", [], None)
    assert found[1][5][2]["v"] == {"B": b"\x00\xff binary"}
    assert found[1][-1] == ("TransactionCanceledException", ["ConditionalCheckFailed"], None)


@asynccontextmanager
async def at_server(server: Server) -> AsyncIterator[Any]:
    async with (
        serving(server) as port,
        place(f"http://127.0.0.1:{port}", lean=no_fallback) as opened,
        opened.beside(4) as rows,
    ):
        yield rows


CLOSED: list[list[bytes | str]] = [[answer()], ["close"], [answer()]]


async def test_a_read_goes_out_again_where_its_connection_was_closed_and_a_write_does_not() -> None:
    server = Server(turns=iter([*CLOSED, *CLOSED[1:], *CLOSED[1:]]))
    async with at_server(server) as rows:
        await rows.get_item(TableName="rows", Key=key("a"))
        await rows.get_item(TableName="rows", Key=key("a"))
        assert len(server.requests) == 3
        with pytest.raises(ConnectionClosedError):
            await rows.update_item(TableName="rows", Key=key("a"))
        assert len(server.requests) == 4


@pytest.mark.parametrize("said", [answer(body=b"null"), answer(headers={"x-amz-crc32": "1"}), answer(body=b"[]")])
async def test_what_is_no_answer_of_a_service_is_none_of_a_row(said: bytes) -> None:
    async with at_server(Server([said])) as rows:
        with pytest.raises(Unreachable):
            await rows.get_item(TableName="rows", Key=key("a"))


async def test_a_proxy_leaves_calls_about_rows_to_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server([error("AccessDeniedException")])
    async with serving(server) as port:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{port}")
        told: list[str] = []
        endpoint = "http://dynamodb.example.com"
        async with place(endpoint, lean=lambda _, why: told.append(why)) as opened, opened.beside(4) as rows:
            with pytest.raises(ClientError, match="AccessDenied"):
                await rows.get_item(TableName="rows", Key=key("a"))
        assert told == ["a proxy is configured"]
        assert b"aiobotocore" in server.requests[0] or b"Amz-Sdk" in server.requests[0].title()
