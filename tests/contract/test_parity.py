"""The lean transport and the stock client, side by side: what they send, and what they make of any answer."""

from __future__ import annotations

import base64
import json
import random
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from aiobotocore.credentials import AioCredentials
from botocore.parsers import create_parser

from replicator import __version__
from replicator.adapters.aws.clients import Place
from replicator.adapters.aws.credentials import Source
from replicator.adapters.aws.errors import _BY_CODE, CREDENTIAL_CODES
from replicator.adapters.aws.transport.lean import LeanTransport, Service
from replicator.adapters.aws.wire import Refusal, Wire
from replicator.adapters.dynamodb.stream_wire import parse_records
from replicator.domain.errors import ReplicatorError
from replicator.domain.records import ChangeRecord
from replicator.laboratory.servers import clean_environment
from tests.contract.fault_server import HTML, Server, answer, serving
from tests.contract.worlds import no_fallback, place
from tests.seeds import seeds

OPERATIONS: dict[str, dict[str, Any]] = {
    "PutItem": {"TableName": "orders"},
    "UpdateItem": {"TableName": "orders"},
    "DeleteItem": {"TableName": "orders"},
    "GetItem": {"TableName": "orders"},
    "TransactWriteItems": {},
    "BatchGetItem": {"RequestItems": {"orders": {}}},
    "GetRecords": {},
}
"""The calls of the hot path, with what the stock client needs to find its endpoint."""

URLS = ["http://127.0.0.1:8000", "https://vpce-1.dynamodb.eu-west-1.vpce.amazonaws.com", "http://[::1]:8000"]

ONLY_THEIRS = {"Accept", "User-Agent", "Amz-Sdk-Invocation-Id", "Amz-Sdk-Request"}
"""Headers that tell the service about the stock client, and are not signed."""


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in clean_environment().items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)


# -- requests ----------------------------------------------------------------------------------------------------------


class Sent(Exception):
    """A request of the stock client, in place of sending it."""


def stop(request: Any, **_: object) -> None:
    raise Sent(request)


def text(dice: random.Random, most: int) -> str:
    """Some text, of one to four bytes a character."""
    return "".join(chr(dice.choice(_CHARACTERS)) for _ in range(dice.randint(1, most)))


_CHARACTERS = [*range(32, 127), 0xE9, 0x4E2D, 0x1F600]
_KEY = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789/+="


def credentials(dice: random.Random) -> AioCredentials:
    """Keys, half of them with a session token."""
    access, secret, token = ("".join(dice.choices(_KEY, k=dice.randint(1, most))) for most in (20, 40, 900))
    return AioCredentials(access, secret, token if dice.random() < 0.5 else None)


def body_of(dice: random.Random) -> bytes:
    """A document as only a fuzzer would send it; what it says is no matter of the transport."""
    document = {text(dice, 8): {"S": text(dice, 300)} for _ in range(dice.randint(0, 4))}
    return json.dumps(document, ensure_ascii=False).encode()


async def stock_request(calls: Wire, operation: str, body: bytes) -> Any:
    """What the stock client would send."""
    with pytest.raises(Sent) as sent:
        await calls.call(operation, body, None, operation, **OPERATIONS[operation])
    return sent.value.args[0]


@pytest.mark.parametrize("seed", seeds(1, 12))
async def test_every_request_is_the_stock_clients(seed: int) -> None:
    """Address, method, headers, signature and body of all hot calls, with credentials that change."""
    dice = random.Random(seed)
    url = URLS[seed % len(URLS)]
    async with place(url) as opened:
        made = {}
        for calls, client in ((opened.items, opened.dynamodb), (opened.records, opened.streams)):
            client.meta.events.register_last("before-send", stop)
            made[calls] = LeanTransport(
                Service.of(client),
                url=url,
                region="eu-west-1",
                credentials=opened.credentials,
                connections=1,
                connect_seconds=1.0,
                read_seconds=1.0,
            )
        for _ in range(250):
            if dice.random() < 0.3:
                opened.credentials._source = Source(credentials(dice))
            operation, body = dice.choice(list(OPERATIONS)), body_of(dice)
            calls = opened.records if operation == "GetRecords" else opened.items
            theirs = await stock_request(calls, operation, body)
            headers = {name.title(): _text(value) for name, value in theirs.headers.items()}
            at = datetime.strptime(headers["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
            keys = await opened.credentials.get_frozen_credentials()
            head, _, sent = made[calls].request(operation, body, keys, at).partition(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").split("\r\n")
            ours = {name.title(): value for name, _, value in (line.partition(": ") for line in lines)}
            assert (theirs.method, theirs.url, theirs.body) == ("POST", f"{url}/", body)
            assert sent == body
            assert first == "POST / HTTP/1.1"
            # Theirs are set where a request is sent; `test_both_send_the_same_headers` sees them.
            assert ours.pop("Host") == url.partition("://")[2]
            assert (ours.pop("User-Agent"), ours.pop("Accept-Encoding")) == (f"replicator/{__version__}", "identity")
            assert ours == {name: value for name, value in headers.items() if name not in ONLY_THEIRS}


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


async def test_both_send_the_same_headers() -> None:
    sent = []
    for lean in (None, no_fallback):
        server = Server([answer()])
        async with serving(server) as port, place(f"http://127.0.0.1:{port}", lean=lean) as opened:
            await opened.items.call("PutItem", b"{}", None, "PutItem", **OPERATIONS["PutItem"])
        first, *lines = server.requests[0].decode().split("\r\n\r\n")[0].split("\r\n")
        names = {name.title(): value for name, _, value in (line.partition(": ") for line in lines)}
        sent.append((first, {name: held for name, held in names.items() if name not in ONLY_THEIRS | MOMENTARY}))
        assert names["Host"] == f"127.0.0.1:{port}"
    stock, ours = sent
    assert ours == stock


MOMENTARY = {"Host", "X-Amz-Date", "Authorization"}


# -- answers -----------------------------------------------------------------------------------------------------------


CODES = sorted({*_BY_CODE, *CREDENTIAL_CODES, "ConditionalCheckFailedException", "TransactionCanceledException", "Odd"})


def document(dice: random.Random) -> bytes:
    """The body of an answer: good, an error, damaged, or something else."""
    kind = dice.randrange(6)
    if kind == 0:
        return body_of(dice)
    if kind == 1:
        return dice.choice([HTML, b"", b"null", b"[]", b"7", b"{", b'"text"', b"\xff", b"sorry"])
    code = dice.choice(["", "com.amazonaws.dynamodb.v20120810#", "x#"]) + dice.choice(CODES)
    code += dice.choice(["", "", ":http://internal.amazon.com/"])
    told: dict[str, Any] = {"__type": code, dice.choice(["message", "Message"]): text(dice, 40)}
    if dice.random() < 0.1:
        told[dice.choice(list(told))] = dice.choice([None, 5, [], {}])
    body = json.dumps(told, ensure_ascii=dice.random() < 0.5).encode()
    return body[: dice.randrange(len(body))] if kind == 2 else body


def answers(seed: int) -> Iterator[list[bytes | str]]:
    """Answers without end, some of which end their connection."""
    dice = random.Random(seed)
    while True:
        status, body = dice.choice([200, 200, 400, 400, 400, 403, 413, 429, 500, 502, 503]), document(dice)
        headers = {"Date": "Sun, 29 Nov 2026 00:00:00 GMT"} if dice.random() < 0.5 else {}
        if dice.random() < 0.5:
            headers["x-amz-crc32"] = str(zlib.crc32(body) + (dice.random() < 0.2))
        framing = dice.randrange(8)
        if framing == 0:
            yield [answer(status, body, headers={**headers, "Connection": "close"}), "close"]
        elif framing == 1:
            yield [answer(status, body, headers=headers, length=len(body) + 1), "close"]
        elif framing == 2:
            yield [_in_chunks(status, body, headers)]
        elif framing == 3:
            whole = answer(status, body, headers=headers)
            at = dice.randrange(len(whole))
            yield [whole[:at], whole[at:]]
        else:
            yield [answer(status, body, headers=headers)]


def _in_chunks(status: int, body: bytes, headers: dict[str, str]) -> bytes:
    head = "".join(f"{name}: {value}\r\n" for name, value in {"Transfer-Encoding": "chunked", **headers}.items())
    parts = [part for part in (body[:3], body[3:]) if part]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in [*parts, b""])
    return f"HTTP/1.1 {status} Some reason\r\n{head}\r\n".encode() + chunks


async def outcomes(opened: Place, dice: random.Random, count: int) -> list[tuple[object, ...]]:
    """What comes of calls: bodies and dates, refusals, errors and what they advise."""
    found: list[tuple[object, ...]] = []
    for _ in range(count):
        operation = dice.choice(list(OPERATIONS))
        calls = opened.records if operation == "GetRecords" else opened.items
        try:
            given = await calls.call(operation, body_of(dice), None, operation, **OPERATIONS[operation])
            found.append(("answer", given.body, given.date))
        except Refusal as refusal:
            found.append(("refusal", refusal.code, refusal.body))
        except ReplicatorError as failed:
            told = failed.message if "got no answer" not in failed.message else "got no answer"
            found.append((type(failed), failed.disposition, told, failed.advice))
    return found


@pytest.mark.parametrize("seed", seeds(1, 12))
async def test_any_answer_means_the_same(seed: int) -> None:
    found = []
    for lean in (None, no_fallback):
        server = Server(turns=answers(seed))
        async with serving(server) as port, place(f"http://127.0.0.1:{port}", lean=lean) as opened:
            found.append(await outcomes(opened, random.Random(seed), 120))
    stock, ours = found
    assert len({type(each[0]) for each in stock}) > 1
    assert ours == stock


# -- records -----------------------------------------------------------------------------------------------------------


def value(dice: random.Random, depth: int = 2) -> dict[str, Any]:
    """An attribute value of any type."""
    kind = dice.choice(["S", "N", "B", "BOOL", "NULL", "SS", "NS", "BS", *(["M", "L"] if depth else [])])
    several = range(dice.randint(1, 3))
    binary = [base64.b64encode(dice.randbytes(dice.randint(0, 20))).decode() for _ in several]
    numbers = [f"{dice.randint(-(10**37), 10**37)}.{dice.randrange(10)}" for _ in several]
    made: dict[str, Any] = {
        "S": text(dice, 20),
        "N": numbers[0],
        "B": binary[0],
        "BOOL": dice.random() < 0.5,
        "NULL": True,
        "SS": [text(dice, 5) for _ in several],
        "NS": numbers,
        "BS": binary,
    }
    if kind == "M":
        return {"M": {text(dice, 5): value(dice, depth - 1) for _ in several}}
    if kind == "L":
        return {"L": [value(dice, depth - 1) for _ in several]}
    return {kind: made[kind]}


def record(dice: random.Random) -> dict[str, Any]:
    """A record as DynamoDB Streams sends it."""
    keys = {name: {kind: text(dice, 9)} for name, kind in zip(("pk", "sk"), dice.choices("SS", k=2), strict=True)}
    event = dice.choice(["INSERT", "MODIFY", "REMOVE"])
    change: dict[str, Any] = {
        "ApproximateCreationDateTime": 1_790_000_000 + dice.randrange(1000),
        "Keys": keys,
        "SequenceNumber": str(dice.randrange(10**21, 10**39)),
        "SizeBytes": 7,
        "StreamViewType": "NEW_AND_OLD_IMAGES",
    }
    for name, there in (("NewImage", event != "REMOVE"), ("OldImage", event != "INSERT")):
        if there:
            change[name] = {**keys, **{text(dice, 6): value(dice) for _ in range(3)}}
    return {"eventID": "1", "eventName": event, "eventVersion": "1.1", "awsRegion": "eu-west-1", "dynamodb": change}


@pytest.mark.parametrize("seed", seeds(1, 12))
async def test_records_are_what_the_stock_client_reads(seed: int) -> None:
    """Key, images, number and time of each record; images as the bytes that came, so that no digit can change."""
    dice = random.Random(seed)
    page = {"Records": [record(dice) for _ in range(60)], "NextShardIterator": "next"}
    body = json.dumps(page, ensure_ascii=dice.random() < 0.5).encode()
    async with place("http://127.0.0.1:1") as opened:
        shape = opened.streams.meta.service_model.operation_model("GetRecords").output_shape
    assert shape is not None
    theirs = create_parser("json").parse({"body": body, "headers": {}, "status_code": 200}, shape)
    ours = parse_records(body, "GetRecords")
    assert ours.next_iterator == theirs["NextShardIterator"]
    for mine, stock in zip(ours.records, theirs["Records"], strict=True):
        change = stock["dynamodb"]
        assert isinstance(mine, ChangeRecord)
        assert mine.event.value == stock["eventName"]
        assert mine.sequence == change["SequenceNumber"]
        assert mine.created_at == change["ApproximateCreationDateTime"].timestamp()
        assert {name: {kind: held} for name, kind, held in mine.key.parts} == change["Keys"]
        for image, wanted in ((mine.new, change.get("NewImage")), (mine.old, change.get("OldImage"))):
            assert (image and _decoded(image.attributes)) == wanted


def _decoded(attributes: dict[str, Any]) -> dict[str, Any]:
    """Binary values as the stock client gives them."""

    def plain(typed: dict[str, Any]) -> dict[str, Any]:
        ((kind, held),) = typed.items()
        match kind:
            case "B":
                return {kind: base64.b64decode(held)}
            case "BS":
                return {kind: [base64.b64decode(each) for each in held]}
            case "M":
                return {kind: _decoded(held)}
            case "L":
                return {kind: [plain(each) for each in held]}
            case _:
                return typed

    return {name: plain(typed) for name, typed in attributes.items()}
