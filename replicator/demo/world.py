"""The demo's world: all regions and their tables on one MiniStack, a Valkey for each cache, the real daemon.

Invariant: what runs is what an operator runs - `replicator init` and `replicator run` as processes of their own, with a
configuration file. Credentials are dummies and exist only in the environment of these processes.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

import aiohttp
import yaml

from replicator.demo.cache_servers import CacheServers
from replicator.demo.dynamodb import LocalRegion, local_regions
from replicator.demo.events import EventConsumers, event_consumers
from replicator.demo.layout import ORDERED, SOURCE, DemoTable, Layout
from replicator.domain.errors import EXIT_DRAIN_TIMED_OUT, EXIT_STOPPED, EXIT_UNREACHABLE
from replicator.laboratory.servers import (
    LOOPBACK,
    Child,
    MiniStack,
    ServerFailed,
    Valkey,
    clean_environment,
    free_ports,
)
from replicator.laboratory.streamlab import StreamLab
from replicator.laboratory.streamlab.gateway import DEFAULT_ACCOUNT
from replicator.laboratory.streamlab.kinesis import API as KINESIS_API

GROUP: Final = "demo"
SIDE_TABLE: Final = f"replicator-side-{GROUP}"
CONFLICT_TABLE: Final = f"replicator-conflicts-{GROUP}"
INIT_SECONDS: Final = 120.0
READY_SECONDS: Final = 120.0
DRAIN_SECONDS: Final = 30.0

_START_ATTEMPTS = 3
_POLL_SECONDS = 0.05
_LAB_POLL_SECONDS = 0.05
_OK = 200
_SOON_MISSED: Final = {"lease": "5s", "heartbeat": "1500ms"}
"""A worker that is killed is missed sooner than by default."""

_DISORDER: Final[dict[str, Any]] = {"kinesis_duplicates": 0.1, "kinesis_disorder": 2.0}
"""What Kinesis does to changes: a tenth of them come twice, and each up to two seconds late."""


@dataclass(slots=True)
class Daemon:
    """The daemon under demonstration: `replicator run` as a child process."""

    config: Path
    directory: Path
    admin_port: int
    child: Child | None = None
    starts: int = 0
    workers: int = 1
    """Processes that share the work, each with an admin server of its own."""

    @property
    def admin_url(self) -> str:
        """Where its admin server listens, the first one if there are more."""
        return self.admin_urls[0]

    @property
    def admin_urls(self) -> list[str]:
        """The admin servers of all workers."""
        return [f"http://{LOOPBACK}:{self.admin_port + worker}" for worker in range(self.workers)]

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
        """Run `replicator run` and wait until /readyz of every worker says yes."""
        child = self.child = self._spawn("run", *(["--workers", str(self.workers)] if self.workers > 1 else []))
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

    async def bootstrap(self, rule: str) -> None:
        """`replicator bootstrap` to the end of its comparison; raises when something differs."""
        child = self._spawn("bootstrap", rule, "--yes")
        await _ended(child)
        if child.process.returncode:
            raise child.failed(f"ended with exit code {child.process.returncode}")

    async def drive_by_functions(self, rule: str) -> None:
        """`replicator rules drive` to its end; once more when something did not answer in time."""
        for attempt in range(1, _START_ATTEMPTS + 1):
            child = self._spawn("rules", "drive", rule, "--by", "lambda")
            await _ended(child)
            code = child.process.returncode
            if code and (code != EXIT_UNREACHABLE or attempt == _START_ATTEMPTS):
                raise child.failed(f"ended with exit code {code}")
            if not code:
                return

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

    def kill(self) -> None:
        """End it without notice."""
        assert self.child is not None
        self.child.process.kill()
        self.child.process.wait()

    def stop(self) -> None:
        """End it now, if it runs."""
        if self.child is not None and self.child.alive:
            self.child.stop()

    def _spawn(self, command: str, *options: str) -> Child:
        self.starts += 1
        return Child.spawn(
            f"replicator {command}",
            ["exec", sys.executable, "-m", "replicator", command, *options, "--config", str(self.config)],
            log=self.directory / f"replicator-{command}-{self.starts}.log",
            environment=clean_environment(),
        )

    async def _ready(self, session: aiohttp.ClientSession) -> bool:
        try:
            for url in self.admin_urls:
                async with session.get(f"{url}/readyz") as response:
                    if response.status != _OK:
                        return False
        except aiohttp.ClientError:
            heed_cancellation()
            return False
        return True


_STREAM = {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"}


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
    layout: Layout = ORDERED
    lab: StreamLab | None = None
    """What gives the daemon the streams of all regions, instead of MiniStack, which has one shard for each."""
    events: EventConsumers | None = None
    """Where every change goes as an event."""

    shards: int = 1
    """Of every stream at the start."""

    cache_servers: CacheServers | None = None
    """Of caches that may fail."""

    @property
    def tables(self) -> tuple[DemoTable, ...]:
        """The tables that are replicated."""
        return self.layout.tables

    async def create_tables(self, *, streams: bool = True) -> None:
        """Create the tables, in every region, with streams where users write, or without any."""
        streamed = self.layout.written if streams else frozenset[str]()
        for table in self.tables:
            for region, name in table.names.items():
                await self.regions[region].call("CreateTable", _creation(table, name, streamed=region in streamed))
        if self.layout.kinesis:
            await self._send_to_kinesis()

    async def _send_to_kinesis(self) -> None:
        """Let the changes of every table go to a Kinesis stream of the laboratory, where users write."""
        assert self.lab is not None, "Kinesis is served by the laboratory"
        for region in self.layout.written:
            there = LocalRegion(self.session, self.lab.url, self.regions[region].region)
            for table in self.tables:
                await there.call("CreateStream", {"StreamName": table.kinesis, "ShardCount": self.shards}, KINESIS_API)
                body = {
                    "TableName": table.names[region],
                    "StreamArn": f"arn:aws:kinesis:{there.region}:{DEFAULT_ACCOUNT}:stream/{table.kinesis}",
                    "EnableKinesisStreamingConfiguration": {"ApproximateCreationDateTimePrecision": "MICROSECOND"},
                }
                await there.call("EnableKinesisStreamingDestination", body)

    async def enable_streams(self) -> None:
        """Enable the streams where users write; they show what is written from now on."""
        for table in self.tables:
            for region in self.layout.written:
                body = {"TableName": table.names[region], "StreamSpecification": _STREAM}
                await self.regions[region].call("UpdateTable", body)

    async def bootstrap(self) -> None:
        """`replicator bootstrap` of every rule, one beside the other."""
        async with asyncio.TaskGroup() as group:
            for rule in self.layout.rules():
                group.create_task(self.daemon.bootstrap(rule["name"]), name=f"bootstrap {rule['name']}")

    async def start_daemon(self, *, by_functions: bool = False) -> None:
        """`replicator init`, then `replicator run` until it is ready; before that, let functions drive every rule."""
        if self.events is not None:
            await self.events.create(self.regions[SOURCE])
        await self.daemon.init()
        for rule in self.layout.rules() if by_functions else ():
            await self.daemon.drive_by_functions(rule["name"])
        for attempt in range(1, _START_ATTEMPTS + 1):
            try:
                await self.daemon.start(self.session)
            except ServerFailed as error:
                if attempt == _START_ATTEMPTS or "in use" not in error.message:
                    raise
            else:
                return
            # Another process took the admin port between our choice and the daemon's start.
            self.daemon.admin_port = free_ports(self.daemon.workers)
            self.write_config()

    def cache_url(self, name: str) -> str:
        """Where the daemon finds a cache."""
        return self.caches[name].url if self.cache_servers is None else self.cache_servers.urls[name]

    def write_config(self) -> None:
        """Write the configuration that the daemon reads."""
        self.daemon.config.write_text(yaml.safe_dump(self.configuration(), sort_keys=False))

    def configuration(self) -> dict[str, Any]:
        """The configuration file's content."""
        return {
            "group": GROUP,
            "regions": {name: self._region(name, region) for name, region in self.layout.regions.items()},
            "coordination": {
                "region": SOURCE,
                "table": "replicator-coordination",
                **({} if self.cache_servers is None else _SOON_MISSED),
            },
            "admin": {"host": LOOPBACK, "port": self.daemon.admin_port},
            "log": {"format": "json"},
            "drain": f"{DRAIN_SECONDS:.0f}s",
            "caches": {
                cache.name: {"region": cache.region, "url": self.cache_url(cache.name)}
                for _, cache in self.layout.used_caches()
            },
            "rules": self._rules(),
            **({} if self.events is None else {"secrets": self.events.secrets}),
        }

    def _rules(self) -> list[dict[str, Any]]:
        rules = self.layout.rules()
        if self.events is None:
            return rules
        return [rule | {"events": self.events.of_rule(rule["name"])} for rule in rules]

    def _region(self, name: str, region: str) -> dict[str, Any]:
        written: dict[str, Any] = {"region": region, "endpoint_url": self.ministack.endpoint_url}
        if self.lab is not None and name in self.layout.written:
            kinesis = {"dynamodb": self.lab.url, "kinesis": self.lab.url} if self.layout.kinesis else {}
            written["endpoints"] = {"streams": self.lab.url, **kinesis}
        return written


@asynccontextmanager
async def open_world(  # noqa: PLR0913 - what a demonstration may ask for
    directory: Path,
    layout: Layout = ORDERED,
    *,
    shards: int | None = None,
    workers: int = 1,
    events: bool = False,
    cache_servers: CacheServers | None = None,
) -> AsyncIterator[World]:
    """Start the servers; everything ends with the block. Logs and the configuration are written to `directory`.

    With `shards`, every stream begins with so many, in the stream laboratory. `cache_servers` run already.
    """
    with ExitStack() as stack:
        ministack = stack.enter_context(MiniStack.start(directory))
        if cache_servers is None:
            caches = {
                cache.name: stack.enter_context(Valkey.start(directory, name=cache.name))
                for _, cache in layout.used_caches()
            }
        else:
            caches = cache_servers.first
        lab = None
        if shards is not None:
            disorder = _DISORDER if layout.kinesis else {}
            lab = StreamLab.start(
                directory, ministack.endpoint_url, shards=shards, poll_seconds=_LAB_POLL_SECONDS, **disorder
            )
            stack.enter_context(lab)
        daemon = Daemon(directory / "replicator.yaml", directory, free_ports(workers), workers=workers)
        stack.callback(daemon.stop)
        async with (
            local_regions(ministack.endpoint_url, layout.regions) as regions,
            event_consumers(layout) if events else nullcontext() as consumers,
        ):
            session = next(iter(regions.values())).session
            world = World(
                directory,
                ministack,
                caches,
                regions,
                daemon,
                session,
                layout,
                lab,
                consumers,
                shards or 1,
                cache_servers,
            )
            world.write_config()
            yield world


def heed_cancellation() -> None:
    """Be cancelled if that was asked for: a connection that is refused at the same moment would hide it."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def _ended(child: Child) -> None:
    while child.alive:  # noqa: ASYNC110 - a process that is waited for by polling has no event
        await asyncio.sleep(_POLL_SECONDS)


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
        body["StreamSpecification"] = _STREAM
    return body
