"""When calls go without the stock client, where to, with what credentials, and whom they trust."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from replicator.adapters.aws import credentials as renewal
from replicator.adapters.aws.clients import ClientTimes, Place, open_place
from replicator.adapters.aws.transport import connection, connections
from replicator.adapters.aws.transport.choice import choose, trust
from replicator.adapters.aws.transport.connection import Answer, BrokenExchange, ReadTimeout
from replicator.adapters.aws.transport.connections import ConnectionPool, ConnectTimeout, Endpoint
from replicator.domain.errors import AccessRefused, Unreachable
from replicator.laboratory.servers import clean_environment
from replicator.settings import Region
from tests.contract.fault_server import ANSWERS, Server, answer, error, serving
from tests.contract.worlds import no_fallback, openssl, place


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in clean_environment().items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "AWS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


async def put(opened: Place) -> bytes:
    return (await opened.items.call("PutItem", b"{}", None, "PutItem", TableName="orders")).body


# -- the stock client serves -------------------------------------------------------------------------------------------


async def test_a_host_that_needs_no_proxy_is_asked_without_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = Server([answer()])
    async with serving(server) as port, place(f"http://127.0.0.1:{port}", lean=no_fallback) as opened:
        assert await put(opened) == b"{}"


async def test_a_client_that_would_send_something_else_serves() -> None:
    reasons: list[tuple[str, str]] = []
    server = Server([answer()])
    async with (
        serving(server) as port,
        place(f"http://127.0.0.1:{port}", lean=lambda *why: reasons.append(why)) as opened,
    ):
        opened.dynamodb.meta.events.register("before-call.dynamodb", _other_type)
        assert await put(opened) == b"{}"
        assert await put(opened) == b"{}"
    assert b"Amz-Sdk-Invocation-Id" in server.requests[0].title()
    assert reasons == [("eu", "it would send other requests than the stock client (Content-Type, Authorization)")]


def _other_type(params: dict[str, dict[str, str]], **_: object) -> None:
    params["headers"]["Content-Type"] = "application/x-amz-json-1.1"


async def test_a_platform_without_a_parser_has_the_stock_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "httptools", None)
    reasons: list[tuple[str, str]] = []
    server = Server([answer()])
    async with (
        serving(server) as port,
        place(f"http://127.0.0.1:{port}", lean=lambda *why: reasons.append(why)) as opened,
    ):
        assert await put(opened) == b"{}"
    assert reasons == [("eu", "httptools cannot be used on this platform")]


# -- where to ----------------------------------------------------------------------------------------------------------


async def test_the_endpoint_is_that_of_the_credentials_account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCOUNT_ID", "123456789012")
    region = Region.model_validate({"region": "eu-west-1"})
    async with open_place("eu", region, ClientTimes(), connections=1) as opened:
        found = [
            (
                await choose(
                    client,
                    credentials=opened.credentials,
                    connections=1,
                    connect_seconds=1.0,
                    read_seconds=1.0,
                    ca_bundle=None,
                )
            ).transport
            for client in (opened.dynamodb, opened.streams)
        ]
    assert [each and each.url for each in found] == [
        "https://123456789012.ddb.eu-west-1.amazonaws.com/",
        "https://streams.dynamodb.eu-west-1.amazonaws.com/",
    ]


# -- credentials -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["ExpiredTokenException", "UnrecognizedClientException"])
@pytest.mark.parametrize("lean", [None, no_fallback], ids=["stock", "lean"])
async def test_keys_that_were_rotated_are_read_again_and_not_too_often(
    code: str, lean: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(key: str) -> None:
        tmp_path.joinpath("keys").write_text(
            f"[prod]\naws_access_key_id = {key}\naws_secret_access_key = s\naws_session_token = t\n"
        )

    def by_key(request: bytes) -> bytes:
        (key,) = re.findall(rb"Credential=([^/]+)/", request)
        seen.append(key.decode())
        return answer() if key == b"ASIANEW" else error(code)

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "keys"))
    seen: list[str] = []
    write("ASIAOLD")
    server = Server(answers=by_key)
    async with serving(server) as port:
        region = Region.model_validate(
            {"region": "eu-west-1", "endpoint_url": f"http://127.0.0.1:{port}", "profile": "prod"}
        )
        async with open_place("eu", region, ClientTimes(), connections=1, lean=lean) as opened:  # type: ignore[arg-type]
            write("ASIANEW")
            for _ in range(3):
                with pytest.raises(AccessRefused):
                    await put(opened)
            assert seen == ["ASIAOLD"] * 3, "they were read a moment ago"
            monkeypatch.setattr(renewal, "AGAIN_SECONDS", 0.0)
            with pytest.raises(AccessRefused):
                await put(opened)
            assert await put(opened) == b"{}"
    assert seen[-1] == "ASIANEW"


# -- trust -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate of an authority of our own for this machine, and its key."""
    directory = tmp_path_factory.mktemp("authority")
    certificate, key = directory / "ca.pem", directory / "key.pem"
    command = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=here"
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    openssl(*command.split(), *names)
    return certificate, key


@asynccontextmanager
async def secured(server: Server, authority: tuple[Path, Path]) -> AsyncIterator[str]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*authority)
    async with serving(server, context) as port:
        yield f"https://127.0.0.1:{port}"


@pytest.mark.parametrize("lean", [None, no_fallback], ids=["stock", "lean"])
async def test_an_authority_is_believed_when_it_is_named(
    lean: object, authority: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server([answer()])
    async with secured(server, authority) as url:
        async with place(url, lean=lean) as opened:  # type: ignore[arg-type]
            with pytest.raises(Unreachable, match=r"(?i)certificate|ssl"):
                await put(opened)
        monkeypatch.setenv("AWS_CA_BUNDLE", str(authority[0]))
        async with place(url, lean=lean) as opened:  # type: ignore[arg-type]
            assert await put(opened) == b"{}"
            assert await put(opened) == b"{}"
    assert len(server.requests) == 2, "none went out to a server that was not believed"


async def test_the_systems_authorities_are_believed(
    authority: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The place where OpenSSL has them; the stock client brings its own and nothing else."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority[0]))
    trust.cache_clear()
    server = Server([answer()])
    async with secured(server, authority) as url, place(url, lean=no_fallback) as opened:
        assert await put(opened) == b"{}"
    trust.cache_clear()


# -- connections under TLS ---------------------------------------------------------------------------------------------


@asynccontextmanager
async def sealed(
    server: Server, authority: tuple[Path, Path] | None, host: str = "127.0.0.1"
) -> AsyncIterator[ConnectionPool]:
    """Connections to a server, under TLS if there is an authority."""
    context = believed = None
    if authority is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*authority)
        believed = ssl.create_default_context(cafile=str(authority[0]))
    async with serving(server, context) as port:
        pool = ConnectionPool(Endpoint(host, port, believed), connections=4, connect_seconds=30, read_seconds=30)
        yield pool
        pool.close()


async def outcome(pool: ConnectionPool) -> object:
    try:
        found = await pool.exchange(request)
    except BrokenExchange as broken:
        return broken.unanswered
    return found.status, found.body, found.checksum


@pytest.mark.parametrize("name", [name for name, script in ANSWERS.items() if "wait" not in script])
async def test_what_a_server_does_comes_to_the_same_under_tls(name: str, authority: tuple[Path, Path]) -> None:
    found = []
    for trusted in (None, authority):
        async with sealed(Server(ANSWERS[name]), trusted) as pool:
            found.append([await outcome(pool), await outcome(pool)])
    assert found[0] == found[1]


async def test_requests_and_answers_of_many_records_of_tls_pass_whole(authority: tuple[Path, Path]) -> None:
    long = b"a" * 300_000
    server = Counted(answers=lambda sent: answer(body=sent.partition(b"\r\n\r\n")[2] * 2))
    async with sealed(server, authority) as pool:
        for body in (b"{}", long, b"{}"):
            head = b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body)
            found = await pool.exchange(lambda head=head, body=body: head + body)  # type: ignore[misc]
            assert found.body == body * 2
    assert server.connected == 1


async def test_an_answer_without_a_length_is_not_whole_when_its_connection_breaks_off(
    authority: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_off(writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").shutdown(socket.SHUT_WR)

    monkeypatch.setattr(asyncio.StreamWriter, "close", break_off)
    async with sealed(Server([b"HTTP/1.1 200 OK\r\n\r\n{}", "pause", "close"]), authority) as pool:
        assert await outcome(pool) is False


async def test_nothing_is_said_to_a_server_of_another_name(authority: tuple[Path, Path]) -> None:
    server = Server([answer()])
    async with sealed(server, authority, "localhost") as pool:
        with pytest.raises(ssl.SSLCertVerificationError):
            await pool.exchange(request)
    assert server.requests == []


@pytest.mark.parametrize("says", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", None], ids=["ends", "plain", "silent"])
async def test_a_server_that_does_not_speak_tls_is_no_server(says: bytes | None) -> None:
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        if says is None:
            await over.wait()
        else:
            writer.write(says)
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    seconds = 0.2 if says is None else 30
    where = Endpoint("127.0.0.1", port, ssl.create_default_context())
    pool = ConnectionPool(where, connections=1, connect_seconds=seconds, read_seconds=30)
    for _ in range(2):
        with pytest.raises(ConnectTimeout if says is None else OSError):
            await pool.exchange(request)
    over.set()
    listening.close()


# -- connections -------------------------------------------------------------------------------------------------------


def request() -> bytes:
    return b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 2\r\n\r\n{}"


class Counted(Server):
    """A server that counts its connections."""

    connected = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connected += 1
        await super().serve(reader, writer)


@asynccontextmanager
async def pooled(server: Server, most: int = 4) -> AsyncIterator[ConnectionPool]:
    async with serving(server) as port:
        pool = ConnectionPool(Endpoint("127.0.0.1", port), connections=most, connect_seconds=2.0, read_seconds=5.0)
        yield pool
        pool.close()


async def test_a_connection_is_used_again_until_it_is_old(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Counted([answer()])
    async with pooled(server) as pool:
        for _ in range(3):
            await pool.exchange(request)
        assert server.connected == 1
        monkeypatch.setattr(connections, "_MOST_AGE_SECONDS", 0.0)
        pool.close()
    server = Counted([answer()])
    async with pooled(server) as pool:
        for _ in range(3):
            await pool.exchange(request)
        assert server.connected == 3


async def test_what_a_burst_opened_does_not_stay_open(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Counted([answer()])
    async with pooled(server) as pool:
        await asyncio.gather(*(pool.exchange(request) for _ in range(4)))
        assert len(pool._kept) == server.connected == 4
        monkeypatch.setattr(connections, "_KEPT_SECONDS", -1.0)
        await pool.exchange(request)
        assert len(pool._kept) == 0


async def test_an_answer_that_nothing_asked_for_is_no_later_requests_answer() -> None:
    server = Counted([answer(body=b"mine") + answer(body=b"no one's")])
    async with pooled(server) as pool:
        for _ in range(3):
            assert (await pool.exchange(request)).body == b"mine"
        assert server.connected == 3


async def test_each_exchange_has_a_deadline_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def turns() -> Iterator[list[bytes | str]]:
        yield [answer()]
        while True:
            yield ["wait"]

    loop, took = asyncio.get_running_loop(), list[float]()

    async def never() -> None:
        began = loop.time()
        with pytest.raises(ReadTimeout):
            await pool.exchange(request)
        took.append(loop.time() - began)

    async with pooled(Server(turns=turns())) as pool:
        monkeypatch.setattr(pool, "_read_seconds", 0.2)
        await pool.exchange(request)
        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(never())
                await asyncio.sleep(0.05)
        assert not pool._busy
    assert len(took) == 3
    assert min(took) > 0.19


async def test_what_may_not_be_sent_twice_is_not() -> None:
    def turns() -> Iterator[list[bytes | str]]:
        while True:
            yield [answer()]
            yield ["close"]

    server = Server(turns=turns())
    async with pooled(server, 1) as pool:
        await pool.exchange(request)
        with pytest.raises(BrokenExchange):
            await pool.exchange(request)
        assert len(server.requests) == 2
        await pool.exchange(request)
        found: Answer = await pool.exchange(request, repeatable=True)
        assert (found.status, len(server.requests)) == (200, 5)
