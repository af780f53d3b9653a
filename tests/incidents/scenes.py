"""One situation of an incident with real processes: what breaks, and what the program shows of it.

Three regions on a local server, each behind an endpoint that fails on command, a cache, `replicator run`, and a writer
that keeps the time of each of its writes: the truth that the figures are compared with.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from replicator.laboratory.servers import clean_environment, free_port
from tests.integration.faulty_endpoint import FaultyEndpoint
from tests.integration.harness import AWS_REGIONS, CREDENTIALS, Daemon, Valve, World, open_world
from tests.patience import PATIENT_SECONDS

COLUMNS = 80
REPLICAS = {"eu": "orders", "ap": "orders-copy"}
TABLES = {"us": "orders", **REPLICAS}
_LINES = 50
_LONGEST_SECONDS = 90.0
_COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_EVERY_SECONDS = 0.5


@dataclass(frozen=True)
class Shown:
    """What a command showed on a terminal, and its exit code."""

    command: str
    code: int
    output: str


def call(world: World, region: str, operation: str, **parameters: Any) -> dict[str, Any]:
    """One unsigned DynamoDB call at the server itself."""
    scope = f"Credential={CREDENTIALS['AWS_ACCESS_KEY_ID']}/20200101/{AWS_REGIONS[region]}/dynamodb/aws4_request"
    request = urllib.request.Request(
        world.endpoint,
        data=json.dumps(parameters).encode(),
        headers={
            "X-Amz-Target": f"DynamoDB_20120810.{operation}",
            "Content-Type": "application/x-amz-json-1.0",
            "Authorization": f"AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature=0",
        },
    )
    with urllib.request.urlopen(request, timeout=PATIENT_SECONDS) as answer:
        decoded: dict[str, Any] = json.loads(answer.read())
    return decoded


class Writer:
    """Puts a new item into the source twice a second, and remembers when."""

    def __init__(self, world: World, region: str = "us") -> None:
        self._world, self._region = world, region
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write, daemon=True)
        self.written: dict[str, float] = {}
        """Seconds since 1970 before the write was sent, by key."""

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(PATIENT_SECONDS)

    def _write(self) -> None:
        while not self._stop.wait(_EVERY_SECONDS):
            key, now = f"w{len(self.written):05}", time.time()
            call(self._world, self._region, "PutItem", TableName="orders", Item={"pk": {"S": key}, "n": {"N": "1"}})
            self.written[key] = now

    def there_in(self, region: str) -> set[str]:
        """The keys that a region's table has."""
        items = call(self._world, region, "Scan", TableName=TABLES[region], ConsistentRead=True)["Items"]
        return {item["pk"]["S"] for item in items}

    def lag_in(self, region: str) -> float:
        """How old the oldest write is that a replica lacks, by this process's clock; 0 when it lacks none."""
        there = self.there_in(region)
        missing = [at for key, at in dict(self.written).items() if key not in there]
        return time.time() - min(missing) if missing else 0.0


@dataclass
class Scene:
    """A running world and the handles by which it is broken."""

    world: World
    endpoints: Mapping[str, FaultyEndpoint]
    cache: Valve
    settings: dict[str, Any]
    writer: Writer
    daemons: list[Daemon] = field(default_factory=list)

    @property
    def config(self) -> Path:
        """The configuration as a file."""
        return self.world.directory / "replicator.yaml"

    def write(self, settings: dict[str, Any]) -> None:
        """Let the file of the worker be another one; commands go on with the first one, as on another machine."""
        self.world.write_settings(settings, "worker.yaml")

    @property
    def rule(self) -> dict[str, Any]:
        rule: dict[str, Any] = self.settings["rules"][0]
        return rule

    def run(self) -> Daemon:
        """Start a worker and wait until it replicates."""
        self.write(self.settings)
        daemon = self.world.daemon(self.world.directory / "worker.yaml")
        self.daemons.append(daemon)
        return daemon

    def command(self, *arguments: str) -> Any:
        """A command's JSON."""
        done = self.world.command(*arguments, "--json", config=self.config)
        return json.loads(done.stdout)

    def shows(self, *arguments: str) -> Shown:
        """What a command shows on a terminal of 80 columns."""
        code, output = on_terminal(
            [str(Path(sys.executable).with_name("replicator")), *arguments], {"REPLICATOR_CONFIG": str(self.config)}
        )
        return Shown(f"replicator {' '.join(arguments)}", code, output.rstrip())

    def kinds(self) -> set[str]:
        """The kinds of problems that `status` sees."""
        return {problem["kind"] for problem in self.command("status")["problems"]}

    def has_table(self, region: str) -> bool:
        """Whether a replica's table is there."""
        return TABLES[region] in call(self.world, region, "ListTables")["TableNames"]


def until(holds: Callable[[], bool]) -> bool:
    """Wait until something holds, longer than any situation takes; whether it does."""
    deadline = time.monotonic() + _LONGEST_SECONDS
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.25)
    return True


def on_terminal(command: list[str], environment: Mapping[str, str]) -> tuple[int, str]:
    """Run a command to its end on a terminal of 80 columns; returns its exit code and what it wrote there."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", _LINES, COLUMNS, 0, 0))
    own = {"TERM": "dumb", "NO_COLOR": "1", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    whole = {**clean_environment(), **CREDENTIALS, **environment, **own}
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=whole) as process:
        os.close(theirs)
        written = b""
        try:
            while data := os.read(ours, 65_536):
                written += data
        except OSError:
            pass  # the terminal of an ended process
        code = process.wait(PATIENT_SECONDS)
    os.close(ours)
    return code, _COLOUR.sub("", written.decode().replace("\r\n", "\n"))


@contextmanager
def open_scene(directory: Path, **changes: Any) -> Iterator[Scene]:
    """A world of its own; `changes`: of the configuration, `rule` of the rule's."""
    with ExitStack() as stack:
        world = stack.enter_context(open_world(directory))
        endpoints = {name: stack.enter_context(FaultyEndpoint(world.dynamodb_port)) for name in ("us", "eu", "ap")}
        cache = Valve(world.valkey_port)
        stack.callback(cache.close)
        settings = world.settings(admin={"port": free_port()}, **changes)
        for name, endpoint in endpoints.items():
            settings["regions"][name]["endpoint_url"] = endpoint.url
        for name, database in (("eu_main", 0), ("ap_main", 1)):
            settings["caches"][name]["url"] = f"redis://127.0.0.1:{cache.port}/{database}"
        world.write_settings(settings)
        writer = Writer(world)
        stack.callback(writer.stop)
        yield Scene(world, endpoints, cache, settings, writer)
