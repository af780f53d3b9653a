"""What is spoken with every other side: TLS 1.2 at least, and nothing with a server that is not believed."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import pytest

from replicator.adapters.aws.transport.choice import trust
from replicator.adapters.redis.cluster import open_cache
from replicator.adapters.redis.opening import Login
from replicator.adapters.sinks.webhook import open_session
from replicator.domain.errors import ReplicatorError
from replicator.laboratory.servers import clean_environment
from tests.contract.worlds import no_fallback, openssl, place

pytestmark = pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")

OLD, NOW = ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate that nothing believes, with its key, in one file."""
    file = tmp_path_factory.mktemp("certificate") / "both.pem"
    command = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=here -addext subjectAltName=IP:127.0.0.1"
    made = [*command.split(), "-keyout", str(file), "-out", str(file.with_suffix(".crt"))]
    openssl(*made)
    file.write_text(file.read_text() + file.with_suffix(".crt").read_text())
    return file


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in clean_environment().items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)
    for name in ("HTTPS_PROXY", "https_proxy", "AWS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


class Greeter:
    """A server that speaks one version of TLS and hangs up behind the greeting."""

    def __init__(self, certificate: Path, version: ssl.TLSVersion) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate)
        self._context.set_ciphers("ALL:@SECLEVEL=0")  # else it would not speak an old one
        self._context.minimum_version = self._context.maximum_version = version
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(60)
        self.port: int = self._listener.getsockname()[1]
        self.greetings: list[str] = []
        """How each ended: the version, or what came instead."""
        self._over = False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            client, _ = self._listener.accept()
            if self._over:
                client.close()
                return
            client.settimeout(60)
            try:
                with self._context.wrap_socket(client, server_side=True) as spoken:
                    spoken.recv(1)
                    self.greetings.append(str(spoken.version()))
            except OSError as error:
                self.greetings.append(str(getattr(error, "reason", error)))

    def close(self) -> None:
        self._over = True
        socket.create_connection(("127.0.0.1", self.port)).close()
        self._thread.join()
        self._listener.close()


@contextmanager
def greeting(certificate: Path, version: ssl.TLSVersion) -> Iterator[Greeter]:
    server = Greeter(certificate, version)
    try:
        yield server
    finally:
        server.close()


async def _stock(port: int) -> None:
    async with place(f"https://127.0.0.1:{port}") as opened:
        await opened.items.call("PutItem", b"{}", None, "PutItem", TableName="orders")


async def _lean(port: int) -> None:
    trust.cache_clear()
    async with place(f"https://127.0.0.1:{port}", lean=no_fallback) as opened:
        await opened.items.call("PutItem", b"{}", None, "PutItem", TableName="orders")


async def _cache(port: int) -> None:
    url = f"rediss://127.0.0.1:{port}/0"
    cache = open_cache("main in eu", url, Login(), Login(), connect_seconds=60, read_seconds=60)
    try:
        await cache.probe()
    finally:
        await cache.close()


async def _webhook(port: int) -> None:
    session = open_session(connections=1, connect_seconds=60, read_seconds=60, private=True)
    async with session, session.options(f"https://127.0.0.1:{port}/"):
        pass


Call = Callable[[int], Awaitable[None]]


@pytest.mark.parametrize("call", [_stock, _lean, _cache, _webhook], ids=lambda call: call.__name__.strip("_"))
async def test_nothing_older_is_spoken_and_no_stranger_is_believed(call: Call, certificate: Path) -> None:
    with greeting(certificate, OLD) as old, greeting(certificate, NOW) as now:
        for server in (old, now):
            with pytest.raises((ReplicatorError, aiohttp.ClientError)):
                await call(server.port)
    assert set(old.greetings) == {"UNSUPPORTED_PROTOCOL"}
    assert now.greetings, "this version would have done"
    assert not {"UNSUPPORTED_PROTOCOL", "TLSv1.2"}.intersection(now.greetings), "and no greeting was completed"


def test_the_server_of_the_past_is_one(certificate: Path) -> None:
    """A client of its time is understood by it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = OLD
    context.set_ciphers("ALL:@SECLEVEL=0")
    with (
        greeting(certificate, OLD) as server,
        socket.create_connection(("127.0.0.1", server.port)) as plain,
        context.wrap_socket(plain) as spoken,
    ):
        spoken.sendall(b"x")
        assert spoken.version() == "TLSv1.1"
