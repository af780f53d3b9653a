"""What the integration tests share: a world of three regions, the real daemon as a process, users, and the truth.

The truth is kept by the users themselves, outside the program; every comparison reads the tables and the cache anew.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self

import redis
import yaml
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession

from replicator.laboratory.servers import MiniStack, Valkey, free_port
from tests.cli import warm
from tests.patience import PATIENT_SECONDS

AWS_REGIONS = {"us": "us-east-1", "eu": "eu-west-1", "ap": "ap-northeast-1"}
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
Item = dict[str, Any]


class Valve:
    """A TCP proxy that can be closed: every connection through it breaks, and new ones are refused."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self.port = free_port()
        self._listener: socket.socket | None = None
        self.open()

    def open(self) -> None:
        """Let traffic through."""
        listener = socket.create_server(("127.0.0.1", self.port))
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def close(self) -> None:
        """Break everything."""
        if self._listener is not None:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        with self._lock:
            for connection in self._open:
                _shut(connection)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                return
            with self._lock:
                self._open |= {client, server}
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65_536):
                sink.sendall(data)
        except OSError:
            pass
        for connection in (source, sink):
            _shut(connection)
        with self._lock:
            self._open.discard(source)
        source.close()


def _shut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return


@dataclass
class World:
    """Three regions on one MiniStack, a Valkey, a configuration, and the daemons that were started on it."""

    directory: Path
    dynamodb_port: int
    valkey_port: int
    daemons: list[Daemon] = field(default_factory=list)
    session: AioSession = field(default_factory=AioSession)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.dynamodb_port}"

    def settings(self, **changes: Any) -> dict[str, Any]:
        """A configuration of one rule; `changes` replace top-level keys, `rule` the rule's."""
        rule = {
            "name": "orders",
            "table": "orders",
            "source": "us",
            "replicas": ["eu", {"region": "ap", "table": "orders-copy"}],
            "cache": [
                {"cache": "eu_main", "key": "order:{pk}", "action": "refresh", "ttl": "1h"},
                {"cache": "ap_main", "key": "copy:{pk}", "action": "invalidate"},
            ],
            **changes.pop("rule", {}),
        }
        return {
            "group": "test",
            "regions": {name: {"region": aws, "endpoint_url": self.endpoint} for name, aws in AWS_REGIONS.items()},
            "coordination": {
                "region": "us",
                "lease": "5s",
                "heartbeat": "1s",
                "checkpoint": "700ms",
                "drained": "3s",
            },
            "apply": {"backoff_max": "1s"},
            "polling": {"interval": "100ms", "idle_max": "300ms"},
            "admin": {"port": 0},
            "caches": {
                "eu_main": {"region": "eu", "url": f"redis://127.0.0.1:{self.valkey_port}/0"},
                "ap_main": {"region": "ap", "url": f"redis://127.0.0.1:{self.valkey_port}/1"},
            },
            "rules": [rule],
            **changes,
        }

    def write_settings(self, settings: dict[str, Any], name: str = "replicator.yaml") -> Path:
        """The configuration as a file."""
        path = self.directory / name
        path.write_text(yaml.safe_dump(settings))
        return path

    def client(self, region: str) -> Any:
        """A DynamoDB client of a region, as an async context manager."""
        return self.session.create_client(
            "dynamodb",
            region_name=AWS_REGIONS[region],
            endpoint_url=self.endpoint,
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
            config=AioConfig(max_pool_connections=64),
        )

    async def create_tables(self, source: str = "orders", copy: str = "orders-copy") -> None:
        """The user's tables: a source with a stream, and two replicas."""
        for region, name in (("us", source), ("eu", source), ("ap", copy)):
            await self.create_table(region, name, stream=region == "us")

    async def create_table(self, region: str, name: str, *, stream: bool = False) -> None:
        """One table with a text key."""
        specification: Any = {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"}
        async with self.client(region) as client:
            await client.create_table(
                TableName=name,
                KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
                AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
                BillingMode="PAY_PER_REQUEST",
                **({"StreamSpecification": specification} if stream else {}),
            )

    def command(self, *arguments: str, config: Path) -> subprocess.CompletedProcess[str]:
        """Run a command of the program to its end."""
        whole = [*arguments, "--config", str(config)]
        return subprocess.CompletedProcess(whole, *warm.command(whole, CREDENTIALS))

    def initialise(self, config: Path) -> None:
        """`replicator init`."""
        done = self.command("init", config=config)
        assert done.returncode == 0, done.stderr

    def daemon(self, config: Path) -> Daemon:
        """`replicator run`, as a process of its own."""
        daemon = Daemon(config, self.directory / f"daemon-{len(self.daemons)}.log")
        self.daemons.append(daemon)
        return daemon

    async def scan(self, region: str, table: str) -> dict[str, Item]:
        """Every item of a table by its key."""
        found: dict[str, Item] = {}
        async with self.client(region) as client:
            async for page in client.get_paginator("scan").paginate(TableName=table, ConsistentRead=True):
                found |= {item["pk"]["S"]: item for item in page["Items"]}
        return found

    async def replicas(self) -> dict[str, dict[str, Item]]:
        """Both replicas' items without their stamps."""
        tables = {"eu": await self.scan("eu", "orders"), "ap": await self.scan("ap", "orders-copy")}
        return {region: {key: plain(item) for key, item in items.items()} for region, items in tables.items()}


def plain(item: Item) -> Item:
    """An item without its stamp."""
    return {name: value for name, value in item.items() if name != "_rep"}


_EVERY_PAGE = {**CREDENTIALS, "REPLICATOR_LOG__LEVEL": "debug"}
"""Each page that is applied has a line of its own."""


def _logged(line: str) -> dict[str, Any]:
    """A line of the log; nothing when it is none, or is cut short: it is being written, or its writer was killed."""
    try:
        logged: dict[str, Any] = json.loads(line) if line.startswith("{") else {}
    except json.JSONDecodeError:
        return {}
    return logged


class Process(Protocol):
    """A program that runs: a fork, or one with an interpreter of its own."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None: ...

    def wait(self, seconds: float) -> int: ...

    def signal(self, number: signal.Signals) -> None: ...

    def kill(self) -> None: ...


class Daemon:
    """One `replicator run`."""

    def __init__(self, config: Path, log: Path) -> None:
        self._config = config
        self.log = log
        self._process: Process | None = None
        self.start()

    def start(self) -> None:
        """Start it, again if it was killed."""
        self.log.touch()
        self._process = warm.started(["run", "--config", str(self._config)], _EVERY_PAGE, self.log, self.log)

    @property
    def process(self) -> Process:
        assert self._process is not None
        return self._process

    def events(self, name: str) -> list[dict[str, Any]]:
        """Log lines of one kind, over all lives of this daemon."""
        return [line for line in map(_logged, self.log.read_text().splitlines()) if line.get("event") == name]

    def get(self, path: str) -> tuple[int, str]:
        """An answer of the admin server."""
        port = self.events("admin_listening")[-1]["port"]
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def status(self) -> dict[str, Any]:
        """What /status says."""
        status: dict[str, Any] = json.loads(self.get("/status")[1])
        return status

    def targets(self) -> dict[str, dict[str, Any]]:
        """Targets of /status by their name."""
        return {
            target["target"]: target
            for rule in self.status()["rules"]
            for shard in rule["shards"]
            for target in shard["targets"]
        }

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()

    def signal(self, number: signal.Signals) -> None:
        """Any other signal."""
        self.process.signal(number)

    def terminate(self, timeout: float = PATIENT_SECONDS) -> int:
        """SIGTERM; returns the exit code."""
        self.process.signal(signal.SIGCONT)
        self.process.signal(signal.SIGTERM)
        return self.process.wait(timeout)

    def end(self) -> None:
        """Whatever it takes."""
        if self.process.poll() is None:
            self.kill()


@contextmanager
def open_world(directory: Path) -> Iterator[World]:
    """A fresh MiniStack and Valkey, ended with every daemon that was started on them."""
    with MiniStack.start(directory) as ministack, Valkey.start(directory) as valkey:
        port = int(ministack.endpoint_url.rsplit(":", 1)[1])
        world = World(directory, port, valkey.port)
        try:
            yield world
        finally:
            for daemon in world.daemons:
                daemon.end()


async def eventually(what: str, holds: Callable[[], Any], *, seconds: float = PATIENT_SECONDS) -> None:
    """Wait until something holds; awaitable or plain."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            found = holds()
            if asyncio.iscoroutine(found):
                found = await found
        except (OSError, IndexError, KeyError):
            found = False
        if found:
            return
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds} s"
        await asyncio.sleep(0.25)


# -- users ---------------------------------------------------------------------------------------------------------


class Users:
    """Writers of the source, each with keys of its own, so that the truth is what they were last told."""

    def __init__(self, world: World, *, seed: int, writers: int = 8, keys: int = 60, table: str = "orders") -> None:
        self._world = world
        self._table = table
        self._random = random.Random(seed)
        self._writers = writers
        self._keys = keys
        self.truth: dict[str, Item] = {}
        self.written = 0

    async def write(self, count: int, *, per_second: float | None = None) -> None:
        """Creates, updates, deletes, re-creates, hot keys; `count` in all."""
        async with self._world.client("us") as client:
            share = count // self._writers
            pause = None if per_second is None else self._writers / per_second
            await asyncio.gather(*(self._writer(client, number, share, pause) for number in range(self._writers)))

    async def _writer(self, client: Any, number: int, count: int, pause: float | None) -> None:
        for _ in range(count):
            hot = self._random.random() < 0.4
            key = f"u{number}-{self._random.randrange(3 if hot else self._keys)}"
            await self._one(client, key)
            self.written += 1
            if pause:
                await asyncio.sleep(pause)

    async def _one(self, client: Any, key: str) -> None:
        serial = f"{self.written}.{self._random.randrange(10**30)}"
        dice = self._random.random()
        if dice < 0.25:
            await client.delete_item(TableName=self._table, Key={"pk": {"S": key}})
            self.truth.pop(key, None)
        elif dice < 0.6 or key not in self.truth:
            item = {
                "pk": {"S": key},
                "number": {"N": "12345678901234567890123456789012345678"},
                "bytes": {"B": serial.encode()},
                "set": {"SS": sorted({"a", serial})},
                "nested": {"M": {"list": {"L": [{"NULL": True}, {"S": ""}, {"BOOL": False}]}}},
                "serial": {"S": serial},
            }
            await client.put_item(TableName=self._table, Item=item)
            self.truth[key] = item
        else:
            await client.update_item(
                TableName=self._table,
                Key={"pk": {"S": key}},
                UpdateExpression="SET serial = :s",
                ExpressionAttributeValues={":s": {"S": serial}},
            )
            self.truth[key] = {**self.truth[key], "serial": {"S": serial}}


# -- readers of the cache ------------------------------------------------------------------------------------------

_LOOK = """
local entry = redis.call('GET', KEYS[1])
if not entry then redis.call('SET', KEYS[1], 'L:' .. ARGV[1], 'PX', 5000) return 'lease' end
return entry
"""
_FILL = """
if redis.call('GET', KEYS[1]) == 'L:' .. ARGV[1] then redis.call('SET', KEYS[1], ARGV[2], 'PX', 3600000) return 1 end
return 0
"""


class CacheReader:
    """An application beside a replica: lease on a miss, consistent read, fill with the lease."""

    def __init__(self, world: World, *, database: int, region: str, table: str, template: str) -> None:
        self._world = world
        self._redis = redis.Redis(port=world.valkey_port, db=database)
        self._region, self._table, self._template = region, table, template

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._redis.close()

    def entry(self, key: str) -> bytes | None:
        """The entry as it stands."""
        value: Any = self._redis.get(self._template.format(pk=key))
        return value if isinstance(value, bytes) else None

    def flush(self) -> None:
        """The cache is lost."""
        self._redis.flushall()

    async def read(self, client: Any, key: str) -> None:
        """Read through the cache."""
        name, token = self._template.format(pk=key), os.urandom(8).hex()
        found: Any = self._redis.eval(_LOOK, 1, name, token)
        if found != b"lease":
            return
        answer = await client.get_item(TableName=self._table, Key={"pk": {"S": key}}, ConsistentRead=True)
        item = answer.get("Item")
        if item is None:
            self._redis.eval(_FILL, 1, name, token, "T:" + "0" * 56)
            return
        version = item.get("_rep", {}).get("S", "0" * 56)
        self._redis.eval(_FILL, 1, name, token, f"V:{version}|{json.dumps(wire(plain(item)))}")

    async def keep_reading(self, keys: Callable[[], list[str]], stop: asyncio.Event) -> None:
        """Read random keys until told to stop."""
        dice = random.Random(1)
        async with self._world.client(self._region) as client:
            while not stop.is_set():
                known = keys()
                if known:
                    await self.read(client, dice.choice(known))
                await asyncio.sleep(0.01)

    async def incoherent(self) -> tuple[int, list[str]]:
        """How many live entries were compared with the replica, and the keys of those that lie."""
        items = await self._world.scan(self._region, self._table)
        compared, lies = 0, []
        prefix = self._template.split("{")[0]
        names: Any = self._redis.keys(prefix + "*")
        for name in names:
            key = name.decode().removeprefix(prefix)
            entry = self.entry(key)
            if entry is None or entry.startswith(b"L:"):
                continue
            compared += 1
            if not _coherent(entry, items.get(key)):
                lies.append(key)
        return compared, lies


def _coherent(entry: bytes, item: Item | None) -> bool:
    if entry.startswith(b"T:"):
        return item is None
    if item is None:
        return False
    version, payload = entry[2:].split(b"|", 1)
    shown: Item = json.loads(payload)
    return bool(version.decode() == item["_rep"]["S"] and shown == wire(plain(item)))


def wire(value: Any) -> Any:
    """Client values as wire JSON: binary as base64, sets sorted."""
    import base64

    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dict):
        return {name: wire(element) for name, element in value.items()}
    if isinstance(value, list):
        return [wire(element) for element in value]
    return value
