"""The lean transport beside the stock client: the same requests, and the same outcome whatever is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime
from email.utils import format_datetime
from itertools import cycle

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from hypothesis import given, settings
from hypothesis import strategies as st

from replicator.adapters.aws.clients import ClientTimes, Place
from replicator.adapters.aws.transport.connection import Answer, BrokenExchange, ReadTimeout
from replicator.adapters.aws.transport.connections import ConnectionPool, Endpoint
from replicator.adapters.aws.transport.signing import Signer
from replicator.adapters.aws.wire import Refusal
from replicator.domain.errors import LeaseLost, ReplicatorError, Unreachable
from replicator.laboratory.servers import clean_environment
from tests.contract.fault_server import ANSWERS, JSON, Server, answer, error, serving
from tests.contract.worlds import PATIENT, no_fallback, place

SHORT = ClientTimes(connect_seconds=60.0, read_seconds=1.0)
"""For what does not come."""
PUT = b'{"TableName":"orders","Item":{"pk":{"S":"a"}}}'


# -- requests ----------------------------------------------------------------------------------------------------------

_printable = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=80)


@given(
    body=st.binary(max_size=2000),
    target=st.sampled_from(["DynamoDB_20120810.PutItem", "DynamoDBStreams_20120810.GetRecords"]),
    keys=st.tuples(_printable, _printable, st.none() | _printable),
    where=st.tuples(
        st.sampled_from(["eu-west-1", "us-gov-east-1", "cn-north-1"]),
        st.sampled_from(["dynamodb.eu-west-1.amazonaws.com", "127.0.0.1:8000", "[::1]:8000"]),
    ),
    now=st.integers(min_value=0, max_value=4_000_000_000),
)
@settings(max_examples=500)
def test_every_signature_is_the_stock_clients(
    body: bytes, target: str, keys: tuple[str, str, str | None], where: tuple[str, str], now: int
) -> None:
    (access, secret, token), (region, host) = keys, where
    credentials = ReadOnlyCredentials(access, secret, token)
    moment = datetime.fromtimestamp(now, UTC)
    request = AWSRequest(
        "POST", f"https://{host}/", headers={"X-Amz-Target": target, "Content-Type": JSON, "Host": host}, data=body
    )
    stock = SigV4Auth(credentials, "dynamodb", region)
    request.context["timestamp"] = moment.strftime("%Y%m%dT%H%M%SZ")
    request.headers["X-Amz-Date"] = request.context["timestamp"]
    if token:
        request.headers["X-Amz-Security-Token"] = token
    canonical = stock.canonical_request(request)
    wanted = stock.signature(stock.string_to_sign(request, canonical), request)

    signer = Signer(service="dynamodb", region=region, host=host, content_type=JSON)
    signer.headers(credentials, target, b"of the same second", now)
    lines = signer.headers(credentials, target, body, now)

    assert f"Signature={wanted}\r\n" in lines.decode()
    assert f"X-Amz-Date: {request.context['timestamp']}\r\n" in lines.decode()
    assert signer.headers(credentials, target, body, now) == lines, "a kept key signs the same again"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in clean_environment().items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)


async def outcome(opened: Place) -> tuple[object, ...]:
    """What came of a call: the answer's body, a refusal, or the kind of an error with what it advises."""
    try:
        answer = await opened.items.call("PutItem", PUT, None, "PutItem", TableName="orders")
    except Refusal as refusal:
        return ("refusal", refusal.code, refusal.body)
    except ReplicatorError as failed:
        told = failed.message if "got no answer" not in failed.message else "PutItem got no answer"
        return (type(failed), failed.disposition, told, failed.advice)
    return ("answer", answer.body)


async def both(script: list[bytes | str]) -> list[tuple[object, ...]]:
    found = []
    for lean in (None, no_fallback):
        server = Server(script)
        async with (
            serving(server) as port,
            place(f"http://127.0.0.1:{port}", lean=lean, times=SHORT if "wait" in script else PATIENT) as opened,
        ):
            found.append(await outcome(opened))
    return found


# -- answers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ANSWERS)
async def test_an_answer_means_the_same_on_both(name: str) -> None:
    stock, lean = await both(ANSWERS[name])

    assert lean == stock


async def test_no_request_follows_to_another_host() -> None:
    """Its signature is for one host. The stock client goes there, where its request is refused."""
    stock, lean = await both([answer(307, b"", headers={"Location": "http://127.0.0.1:9/"})])

    assert stock[0] is lean[0] is Unreachable


# -- what only the lean transport decides ----------------------------------------------------------------------------


class Down:
    """A fence that falls after so many questions."""

    def __init__(self, questions: int) -> None:
        self.left = questions

    def check(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise LeaseLost("the lease is over")


async def test_a_kept_connection_that_was_closed_is_replaced_and_the_fence_asked_again() -> None:
    server = Server(turns=cycle([[answer()], ["close"]]))
    async with serving(server) as port, place(f"http://127.0.0.1:{port}", lean=no_fallback) as opened:
        await opened.items.call("PutItem", PUT, None, "PutItem")
        assert (await opened.items.call("PutItem", PUT, None, "PutItem")).body == b"{}"
        assert len(server.requests) == 3

        with pytest.raises(LeaseLost):
            await opened.items.call("PutItem", PUT, Down(1), "PutItem")
        assert len(server.requests) == 4, "it went out once, and not a second time behind the fallen fence"


async def test_nothing_goes_out_behind_a_fallen_fence() -> None:
    server = Server([answer()])
    async with serving(server) as port, place(f"http://127.0.0.1:{port}", lean=no_fallback) as opened:
        with pytest.raises(LeaseLost):
            await opened.items.call("PutItem", PUT, Down(0), "PutItem")
    assert not server.requests


async def test_a_clock_that_is_off_is_corrected_by_the_answer() -> None:
    late = format_datetime(datetime.fromtimestamp(datetime.now(UTC).timestamp() + 3600, UTC), usegmt=True)
    refusal = answer(400, b'{"__type":"x#InvalidSignatureException","message":"expired"}', headers={"Date": late})
    server = Server(turns=iter([[refusal], [answer()]]))
    async with serving(server) as port, place(f"http://127.0.0.1:{port}", lean=no_fallback) as opened:
        with pytest.raises(ReplicatorError):
            await opened.items.call("PutItem", PUT, None, "PutItem")
        await opened.items.call("PutItem", PUT, None, "PutItem")
    first, second = (_header(request, b"x-amz-date") for request in server.requests)
    apart = datetime.strptime(second, "%Y%m%dT%H%M%SZ") - datetime.strptime(first, "%Y%m%dT%H%M%SZ")  # noqa: DTZ007
    assert 3500 < apart.total_seconds() < 3700


def _header(request: bytes, name: bytes) -> str:
    (line,) = [line for line in request.split(b"\r\n") if line.lower().startswith(name + b":")]
    return line.partition(b": ")[2].decode()


async def test_a_proxy_leaves_the_calls_to_the_stock_client(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server([answer()])
    async with serving(server) as port:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{port}")
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        reasons: list[tuple[str, str]] = []
        async with place("http://dynamodb.invalid", lean=lambda *why: reasons.append(why)) as opened:
            assert await outcome(opened) == ("answer", b"{}")
    assert server.requests[0].startswith(b"POST http://dynamodb.invalid/"), "the proxy was asked"
    assert reasons == [("eu", "a proxy is configured")]


def late() -> Iterator[list[bytes | str]]:
    yield ["wait"]
    yield [answer(body=b"mine")]


# -- connections -------------------------------------------------------------------------------------------------------


async def _exchanges(
    server: Server, use: Callable[[ConnectionPool], Awaitable[None]], connections: int = 1, read_seconds: float = 5.0
) -> None:
    async with serving(server) as port:
        pool = ConnectionPool(
            Endpoint("127.0.0.1", port), connections=connections, connect_seconds=60.0, read_seconds=read_seconds
        )
        await use(pool)
        pool.close()


def request() -> bytes:
    return b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 2\r\n\r\n{}"


async def test_a_cancelled_exchange_leaves_no_connection_behind() -> None:
    server = Server(turns=late())

    async def use(pool: ConnectionPool) -> None:
        first = asyncio.create_task(pool.exchange(request))
        while not server.requests:  # noqa: ASYNC110 - the server of this test
            await asyncio.sleep(0.01)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert (await pool.exchange(request)).body == b"mine", "another one's answer never comes to this request"

    await _exchanges(server, use)


async def test_an_answer_that_comes_too_late_is_no_later_requests_answer() -> None:
    server = Server(turns=late())

    async def use(pool: ConnectionPool) -> None:
        with pytest.raises(ReadTimeout):
            await pool.exchange(request)
        pool._read_seconds = 60.0
        assert (await pool.exchange(request)).body == b"mine"

    await _exchanges(server, use, read_seconds=0.5)


async def test_no_more_connections_are_open_than_may_be_and_every_turn_comes() -> None:
    server = Server([answer()])
    connected = 0
    most = 0

    async def counted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connected, most
        connected += 1
        most = max(most, connected)
        await server.serve(reader, writer)
        connected -= 1

    listening = await asyncio.start_server(counted, "127.0.0.1", 0)
    pool = ConnectionPool(
        Endpoint("127.0.0.1", listening.sockets[0].getsockname()[1]),
        connections=3,
        connect_seconds=60.0,
        read_seconds=60.0,
    )
    tasks = [asyncio.create_task(pool.exchange(request)) for _ in range(50)]
    tasks[10].cancel()
    tasks[20].cancel()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(each, asyncio.CancelledError) for each in answers) == 2
    assert len(server.requests) >= 48
    assert most <= 3
    pool.close()
    listening.close()


# -- what follows on the same connection ----------------------------------------------------------------------------


def usual(number: int) -> bytes:
    return answer(headers={"x-amzn-RequestId": f"A{number % 10}"})


def turns_of(*turns: Sequence[bytes | str]) -> Iterator[Sequence[bytes | str]]:
    return iter(turns)


def asks(number: int) -> bytes:
    body = b"%d" % number
    return b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


class Asking:
    """A row of requests: `prepare` gives the present one, `following` the one behind it, if there is one."""

    def __init__(self, most: int) -> None:
        self.number = 0
        self._most = most

    def prepare(self) -> bytes:
        return asks(self.number)

    def following(self, _: Answer) -> bytes | None:
        if self.number == self._most:
            return None
        self.number += 1
        return self.prepare()


def bodies(server: Server) -> list[bytes]:
    return [each.partition(b"\r\n\r\n")[2] for each in server.requests]


async def test_requests_follow_each_other_and_one_that_finds_its_connection_closed_goes_out_again() -> None:
    last = [answer(body=b'{"other":1}')]
    turns = turns_of([usual(0)], [usual(1)], [usual(2)], [usual(3)], ["close"], [usual(4)], last)
    server, row = Server(turns=turns), Asking(9)

    async def use(pool: ConnectionPool) -> None:
        await pool.exchange(lambda: asks(99))  # by which the usual answer is known
        found = await pool.exchange(row.prepare, repeatable=True, following=row.following)
        assert found.body == b'{"other":1}', "an answer that is another one ends it, whatever would follow"

    await _exchanges(server, use)
    assert bodies(server) == [b"99", b"0", b"1", b"2", b"3", b"3", b"4"]


async def test_what_may_be_sent_once_is_not_repeated_in_a_row() -> None:
    server, row = Server(turns=turns_of([usual(0)], [usual(1)], ["close"])), Asking(9)

    async def use(pool: ConnectionPool) -> None:
        await pool.exchange(lambda: asks(99))
        with pytest.raises(BrokenExchange):
            await pool.exchange(row.prepare, following=row.following)

    await _exchanges(server, use)
    assert bodies(server) == [b"99", b"0", b"1"]


async def test_a_row_that_is_cancelled_leaves_no_connection_behind() -> None:
    server, row = Server(turns=turns_of([usual(0)], [usual(1)], ["pause", usual(2)], [answer(body=b"mine")])), Asking(9)

    async def use(pool: ConnectionPool) -> None:
        await pool.exchange(lambda: asks(99))
        going = asyncio.create_task(pool.exchange(row.prepare, following=row.following))
        while len(server.requests) < 3:  # noqa: ASYNC110 - the server of this test
            await asyncio.sleep(0.001)
        going.cancel()
        with pytest.raises(asyncio.CancelledError):
            await going
        assert (await pool.exchange(request)).body == b"mine"

    await _exchanges(server, use)
    assert row.number == 1, "nothing followed behind the cancellation"


async def test_each_request_of_a_row_has_a_deadline_of_its_own() -> None:
    server, row = Server(turns=turns_of([usual(0)], [usual(1)], [usual(2)], ["wait"])), Asking(9)
    due: list[float] = []

    async def use(pool: ConnectionPool) -> None:
        def following(found: Answer) -> bytes | None:
            due.extend(each.due_at for each in pool._busy)
            return row.following(found)

        await pool.exchange(lambda: asks(99))
        with pytest.raises(ReadTimeout):
            await pool.exchange(row.prepare, following=following)

    await _exchanges(server, use, read_seconds=2.0)
    assert len(due) == 2
    assert due[0] < due[1]


async def test_a_row_ends_where_another_request_waits_for_its_connection() -> None:
    server, row = Server(answers=lambda _: usual(len(server.requests))), Asking(1_000_000)

    async def use(pool: ConnectionPool) -> None:
        await pool.exchange(lambda: asks(99))
        going = asyncio.create_task(pool.exchange(row.prepare, following=row.following))
        while row.number < 3:  # noqa: ASYNC110 - what follows meanwhile is what is waited for
            await asyncio.sleep(0.001)
        await pool.exchange(request)
        assert (await going).body == b"{}"

    await _exchanges(server, use)
    assert b"%d" % row.number in bodies(server)


async def test_an_error_between_two_requests_is_the_callers_and_ends_the_connection() -> None:
    server = Server(answers=lambda _: usual(len(server.requests)))

    async def use(pool: ConnectionPool) -> None:
        def following(_: Answer) -> bytes | None:
            raise LeaseLost("the lease is over")

        await pool.exchange(request)
        with pytest.raises(LeaseLost):
            await pool.exchange(request, following=following)
        assert not pool._kept

    await _exchanges(server, use)
    assert len(server.requests) == 2


async def test_the_fence_is_asked_before_each_call_of_a_row_and_what_fails_is_the_last_one() -> None:
    refused = error("ConditionalCheckFailedException")
    turns = [[usual(0)], [usual(1)], [usual(2)], [usual(3)], [usual(4)], [refused], [usual(5)], [error("AccessDenied")]]
    server = Server(turns=iter(turns))
    calls: list[tuple[str, bytes]] = []

    def following() -> tuple[str, bytes]:
        calls.append(("PutItem" if len(calls) % 2 else "TransactWriteItems", PUT))
        return calls[-1]

    def what() -> str:
        return f"call {len(calls)}"

    async with serving(server) as port, place(f"http://127.0.0.1:{port}", lean=no_fallback) as opened:
        await opened.items.call("PutItem", PUT, None, "first")
        with pytest.raises(LeaseLost):
            await opened.items.call("PutItem", PUT, Down(3), what, following=following)
        assert len(server.requests) == 4, "the fourth one of the row was not sent"
        with pytest.raises(Refusal) as told:
            await opened.items.call("PutItem", PUT, None, what, following=following)
        assert told.value.code == "ConditionalCheckFailedException"
        with pytest.raises(ReplicatorError, match=f"call {len(calls) + 1}"):
            await opened.items.call("PutItem", PUT, None, what, following=following)
    sent = [_header(each, b"x-amz-target").rpartition(".")[2] for each in server.requests]
    assert sent == [
        "PutItem",
        "PutItem",
        "TransactWriteItems",
        "PutItem",
        "PutItem",
        "PutItem",
        "PutItem",
        "TransactWriteItems",
    ]
