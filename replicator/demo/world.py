"""The demo's world: three regions and their tables on one MiniStack, a Valkey beside each replica, the real daemon.

Invariant: what runs is what an operator runs - `replicator init` and `replicator run` as processes of their own, with a
configuration file. Credentials are dummies and exist only in the environment of these processes.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NoReturn

import aiohttp
import yaml

from replicator.demo.dynamodb import LocalRegion, local_regions
from replicator.demo.servers import LOOPBACK, Child, MiniStack, ServerFailed, Valkey, clean_environment, free_port
from replicator.domain.errors import EXIT_DRAIN_TIMED_OUT, EXIT_STOPPED

SOURCE: Final = "us"
REGIONS: Final = {"us": "us-east-1", "eu": "eu-west-1", "ap": "ap-northeast-1"}
GROUP: Final = "demo"
SIDE_TABLE: Final = f"replicator-side-{GROUP}"
INIT_SECONDS: Final = 30.0
READY_SECONDS: Final = 30.0
DRAIN_SECONDS: Final = 10.0

_START_ATTEMPTS = 3
_POLL_SECONDS = 0.05
_OK = 200


@dataclass(frozen=True, slots=True)
class DemoCache:
    """A cache beside a replica, as one rule uses it."""

    name: str
    region: str
    action: str
    key: str
    """The template."""


@dataclass(frozen=True, slots=True)
class DemoTable:
    """A table that is replicated: `key` is (attribute, type) of the hash key and, if there is one, of the range key."""

    rule: str
    key: tuple[tuple[str, str], ...]
    names: dict[str, str]
    """Table name by region id."""

    caches: tuple[DemoCache, ...] = ()

    @property
    def replicas(self) -> tuple[str, ...]:
        """Region ids of the replicas."""
        return tuple(region for region in self.names if region != SOURCE)


ORDERS: Final = DemoTable(
    rule="orders",
    key=(("customer", "S"), ("order", "N")),
    names={"us": "orders", "eu": "orders", "ap": "orders-copy"},
    caches=(
        DemoCache("eu_cache", "eu", "refresh", "order:{customer}:{order}"),
        DemoCache("ap_cache", "ap", "invalidate", "order:{customer}:{order}"),
    ),
)
SESSIONS: Final = DemoTable(
    rule="sessions",
    key=(("id", "S"),),
    names={"us": "sessions", "eu": "sessions", "ap": "sessions-copy"},
)
TABLES: Final = (ORDERS, SESSIONS)


@dataclass(slots=True)
class Daemon:
    """The daemon under demonstration: `replicator run` as a child process."""

    config: Path
    directory: Path
    admin_port: int
    child: Child | None = None
    starts: int = 0

    @property
    def admin_url(self) -> str:
        """Where its admin server listens."""
        return f"http://{LOOPBACK}:{self.admin_port}"

    async def init(self) -> None:
        """Run `replicator init` to its end."""
        child = self._spawn("init")
        try:
            async with asyncio.timeout(INIT_SECONDS):
                await _ended(child)
        except TimeoutError:
            child.stop()
            raise child.failed(f"did not end within {INIT_SECONDS:.0f} s") from None
        if child.process.returncode != EXIT_STOPPED:
            raise child.failed(f"ended with exit code {child.process.returncode}")

    async def start(self, session: aiohttp.ClientSession) -> None:
        """Run `replicator run` and wait until /readyz says yes."""
        child = self.child = self._spawn("run")
        try:
            async with asyncio.timeout(READY_SECONDS):
                while not await self._ready(session):
                    if not child.alive:
                        raise child.failed(f"ended with exit code {child.process.returncode} before it was ready")
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            child.stop()
            raise child.failed(f"was not ready after {READY_SECONDS:.0f} s") from None

    async def watch(self) -> NoReturn:
        """Raise when it ends by itself; runs until cancelled."""
        assert self.child is not None
        await _ended(self.child)
        raise self.child.failed(f"ended with exit code {self.child.process.returncode} while it was needed")

    async def drain(self) -> int:
        """SIGTERM, and its exit code; it must drain, save its position and exit with 0."""
        assert self.child is not None
        if not self.child.alive:
            raise self.child.failed(f"ended with exit code {self.child.process.returncode} while it was needed")
        self.child.process.terminate()
        try:
            async with asyncio.timeout(DRAIN_SECONDS + 5):
                await _ended(self.child)
        except TimeoutError:
            self.stop()
            return EXIT_DRAIN_TIMED_OUT
        return self.child.process.wait()

    def stop(self) -> None:
        """End it now, if it runs."""
        if self.child is not None and self.child.alive:
            self.child.stop()

    def _spawn(self, command: str) -> Child:
        self.starts += 1
        return Child.spawn(
            f"replicator {command}",
            ["exec", sys.executable, "-m", "replicator", command, "--config", str(self.config)],
            log=self.directory / f"replicator-{command}-{self.starts}.log",
            environment=clean_environment(),
        )

    async def _ready(self, session: aiohttp.ClientSession) -> bool:
        try:
            async with session.get(f"{self.admin_url}/readyz") as response:
                return response.status == _OK
        except aiohttp.ClientError:
            heed_cancellation()
            return False


@dataclass(frozen=True, slots=True)
class World:
    """Everything that runs, and where it is."""

    directory: Path
    ministack: MiniStack
    caches: dict[str, Valkey]
    """By cache name."""

    regions: dict[str, LocalRegion]
    daemon: Daemon
    session: aiohttp.ClientSession
    tables: tuple[DemoTable, ...] = field(default=TABLES)

    async def create_tables(self) -> None:
        """Create the source tables with their streams, and the replicas."""
        for table in self.tables:
            for region, name in table.names.items():
                await self.regions[region].call("CreateTable", _creation(table, name, streamed=region == SOURCE))

    async def start_daemon(self) -> None:
        """`replicator init`, then `replicator run` until it is ready."""
        await self.daemon.init()
        for attempt in range(1, _START_ATTEMPTS + 1):
            try:
                await self.daemon.start(self.session)
            except ServerFailed as error:
                if attempt == _START_ATTEMPTS or "in use" not in error.message:
                    raise
            else:
                return
            # Somebody took the admin port between our choice and the daemon's start.
            self.daemon.admin_port = free_port()
            self.write_config()

    def write_config(self) -> None:
        """Write the configuration that the daemon reads."""
        self.daemon.config.write_text(yaml.safe_dump(self.configuration(), sort_keys=False))

    def configuration(self) -> dict[str, Any]:
        """The configuration file's content."""
        return {
            "group": GROUP,
            "regions": {
                name: {"region": region, "endpoint_url": self.ministack.endpoint_url}
                for name, region in REGIONS.items()
            },
            "coordination": {"region": SOURCE, "table": "replicator-coordination"},
            "admin": {"host": LOOPBACK, "port": self.daemon.admin_port},
            "log": {"format": "json"},
            "drain": f"{DRAIN_SECONDS:.0f}s",
            "caches": {
                cache.name: {"region": cache.region, "url": self.caches[cache.name].url} for _, cache in used_caches()
            },
            "rules": [_rule(table) for table in self.tables],
        }


@asynccontextmanager
async def open_world(directory: Path) -> AsyncIterator[World]:
    """Start the servers; everything ends with the block. Logs and the configuration are written to `directory`."""
    with ExitStack() as stack:
        ministack = stack.enter_context(MiniStack.start(directory))
        caches = {
            cache.name: stack.enter_context(Valkey.start(directory, name=cache.name)) for _, cache in used_caches()
        }
        daemon = Daemon(directory / "replicator.yaml", directory, free_port())
        stack.callback(daemon.stop)
        async with local_regions(ministack.endpoint_url, REGIONS) as regions:
            session = next(iter(regions.values())).session
            world = World(directory, ministack, caches, regions, daemon, session)
            world.write_config()
            yield world


def used_caches() -> Iterator[tuple[DemoTable, DemoCache]]:
    """Every cache, with the table whose items it holds."""
    for table in TABLES:
        for cache in table.caches:
            yield table, cache


def heed_cancellation() -> None:
    """Be cancelled if that was asked for: a connection that is refused at the same moment would hide it."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def _ended(child: Child) -> None:
    while child.alive:  # noqa: ASYNC110 - a process that is waited for by polling has no event
        await asyncio.sleep(_POLL_SECONDS)


def _rule(table: DemoTable) -> dict[str, Any]:
    source = table.names[SOURCE]
    actions = []
    for cache in table.caches:
        action = {"cache": cache.name, "key": cache.key, "action": cache.action}
        actions.append(action | {"ttl": "1h"} if cache.action == "refresh" else action)
    return {
        "name": table.rule,
        "table": source,
        "mode": "ordered",
        "source": SOURCE,
        "replicas": [
            region if table.names[region] == source else {"region": region, "table": table.names[region]}
            for region in table.replicas
        ],
        "cache": actions,
    }


def _creation(table: DemoTable, name: str, *, streamed: bool) -> dict[str, Any]:
    body: dict[str, Any] = {
        "TableName": name,
        "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [{"AttributeName": part, "AttributeType": kind} for part, kind in table.key],
        "KeySchema": [
            {"AttributeName": part, "KeyType": role}
            for (part, _), role in zip(table.key, ("HASH", "RANGE"), strict=False)
        ],
    }
    if streamed:
        body["StreamSpecification"] = {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"}
    return body
