"""A cache behind TLS with an authority of our own, which asks clients for certificates."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from replicator.adapters.redis.cluster import CacheClient, open_cache
from replicator.adapters.redis.opening import Login
from replicator.domain.cache_keys import Invalidate, Refresh
from replicator.domain.errors import AccessRefused, ReplicatorError
from replicator.laboratory.servers import Valkey, free_port
from tests.contract.test_cache_troubles import pump
from tests.contract.worlds import openssl

pytestmark = pytest.mark.servers


def made(directory: Path, name: str, *more: str) -> None:
    command = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"]
    command += ["-keyout", str(directory / f"{name}.key"), "-out", str(directory / f"{name}.pem"), *more]
    openssl(*command)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, what it signed for the server and for a client, and another authority."""
    directory = tmp_path_factory.mktemp("certificates")
    signed = ("-CA", str(directory / "ca.pem"), "-CAkey", str(directory / "ca.key"))
    made(directory, "ca")
    made(directory, "other")
    for name in ("server", "client"):
        made(directory, name, *signed, "-addext", "basicConstraints=critical,CA:FALSE")
    return directory


@asynccontextmanager
async def in_front(server: Valkey, certificates: Path) -> AsyncIterator[int]:
    """TLS in front of a server that has none."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(certificates / "ca.pem"))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    tasks: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", server.port)
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            tasks.add(asyncio.create_task(pump(source, sink)))

    listening = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def serving(kind: str, directory: Path, certificates: Path) -> AsyncIterator[int]:
    """The port of a server that speaks TLS and asks for a certificate."""
    if kind == "valkey":
        with Valkey.start(directory) as server:
            async with in_front(server, certificates) as port:
                yield port
        return
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server is installed here")
    port = free_port()
    options: tuple[str, ...] = ("--tls-port", str(port), "--tls-cert-file", str(certificates / "server.pem"))
    options += ("--tls-key-file", str(certificates / "server.key"), "--tls-ca-cert-file", str(certificates / "ca.pem"))
    with Valkey.start(directory, binary=shutil.which("redis-server"), options=options):
        yield port


@asynccontextmanager
async def opened(port: int, **options: Path) -> AsyncIterator[CacheClient]:
    query = "&".join(f"{name}={value}" for name, value in options.items())
    cache = open_cache(
        "main in eu", f"rediss://127.0.0.1:{port}/0?{query}", Login(), Login(), connect_seconds=5, read_seconds=5
    )
    try:
        yield cache
    finally:
        await cache.close()


@pytest.mark.parametrize("kind", ["valkey", "redis"])
async def test_a_private_authority_and_a_client_certificate_are_used_and_a_wrong_one_is_a_sentence(
    kind: str, tmp_path: Path, certificates: Path
) -> None:
    client = {"ssl_certfile": certificates / "client.pem", "ssl_keyfile": certificates / "client.key"}
    async with serving(kind, tmp_path, certificates) as port:
        async with opened(port, ssl_ca_certs=certificates / "ca.pem", **client) as cache:
            await cache.probe()
            assert (await cache.apply([Invalidate("a"), Refresh("b", "1" * 56, b"{}", 1000)])).refused == {}
        for options in ({"ssl_ca_certs": certificates / "other.pem", **client}, client):
            async with opened(port, **options) as cache:
                for ask in (cache.probe, lambda cache=cache: cache.apply([Invalidate("a")])):
                    with pytest.raises(AccessRefused, match="shows a certificate that is not trusted") as caught:
                        await ask()
                    assert caught.value.message.startswith(f"The cache main in eu at rediss://127.0.0.1:{port}")
                    assert "\n" not in caught.value.message
        async with opened(port, ssl_ca_certs=certificates / "ca.pem") as cache:
            with pytest.raises(ReplicatorError, match=r"client's certificate|got no answer"):  # an alert may be late
                await cache.probe()
