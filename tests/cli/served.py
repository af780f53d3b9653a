"""A world whose daemons serve the admin API and the console: a conflict and two parked keys are there to be seen."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from replicator.admin.api.openapi import ENDPOINTS
from replicator.laboratory.servers import MiniStack, Valkey
from tests.cli.daemons import Daemon, running, wait_until
from tests.cli.proxy import DenyingServer, serving
from tests.cli.worlds import World, fresh_account

TOKENS = {"alice": "planted-token-of-alice-0123456789", "screen": "planted-token-of-a-screen-0123456"}
PLANTED = "planted-value"
NO_ROOM = 409_600 - len("pk") - len("sk") - 2 - len("text") - len(PLANTED) - 30
"""Characters of a text and its key with which an item has room at the source, and none for its version."""
GAP = "fccae137d602"


@dataclass
class Served:
    """A daemon with its API, the world that it replicates, and what is between it and the tables of region us."""

    world: World
    daemon: Daemon
    proxy: DenyingServer
    conflict: Any = None
    row: Any = None
    other_row: Any = None

    def has_begun(self) -> bool:
        """Whether both workers live, and there is something to see."""
        conflicts, rows = self.ask("/conflicts")[1]["conflicts"], self.ask("/parked")[1]["parked"]
        if len(conflicts) != 1 or len(rows) != 2 or len(self.ask("/workers")[1]["workers"]) != 2:
            return False
        (self.conflict,), (self.row, self.other_row) = conflicts, rows
        return True

    def ask(
        self, path: str, token: str | None = None, body: Any = None, port: int = 0, **headers: str
    ) -> tuple[int, Any]:
        """Status and document of an answer."""
        status, text, _ = self.raw(path, token, body, port, **headers)
        return status, json.loads(text)

    def raw(
        self, path: str, token: str | None = None, body: Any = None, port: int = 0, **headers: str
    ) -> tuple[int, str, dict[str, str]]:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            sent["Authorization"] = f"Bearer {TOKENS.get(token, token)}"
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        if data is not None:
            sent.setdefault("Content-Type", "application/json")
        url = f"http://127.0.0.1:{self.daemon.port + port}/api/v1{path}"
        request = urllib.request.Request(url, data=data, headers=sent)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return answer.status, answer.read().decode(), dict(answer.headers)
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(), dict(error.headers)

    def looks(self) -> dict[str, str]:
        """What every operation says that changes nothing; to a token where it takes one."""
        ids = {"conflict": self.conflict["id"], "promotion": self.conflict["id"], "parked_row": self.row["row"]}
        key = {"rewinding": "?to=trim_horizon", "inspect": "?key=" + urllib.parse.quote('{"pk":"a","sk":2}')}
        paths = {
            each.name: each.path.replace("{id}", ids.get(each.name, "none")).replace("{rule}", "orders")
            + key.get(each.name, "")
            for each in ENDPOINTS
            if not each.writes
        }
        by_token = {each.name for each in ENDPOINTS if each.token}
        return {name: self.raw(path, "screen" if name in by_token else None)[1] for name, path in paths.items()}


def lose_something(world: World) -> None:
    """A gap that is not accepted, as a worker notes one."""
    gap = {"stream": "arn", "region": "us", "table": "orders", "shard": "s1", "target": "orders/replica/eu:orders"}
    text = {**gap, "after": "42", "pk": "test|gaps", "sk": GAP, "why": "trimmed"}
    numbers = {"sv": "1", "generation": "1", "found_at": "1780000000.5"}
    item = {name: {"S": each} for name, each in text.items()} | {name: {"N": each} for name, each in numbers.items()}
    world.call("us", "PutItem", TableName="replicator-coordination", Item=item)


@contextmanager
def served_world(ministack: MiniStack, valkey: Valkey, directory: Path, *, key: str = "a") -> Iterator[Served]:
    """Serve until the context ends. `key`: the partition of every item."""
    world = World(ministack.endpoint_url, valkey.url, fresh_account(), directory)
    world.config["admin"]["api"] = {
        "enabled": True,
        "hosts": ["replicator.example.com"],
        "tokens": {"alice": {"secret": "alice"}, "screen": {"secret": "screen", "access": "read"}},
    }
    world.config["secrets"] = dict(TOKENS)
    world.rule["on_gap"] = "stop"
    world.sound()
    world.put("eu", "orders", pk={"S": key}, sk={"N": "1"}, text={"S": f"{PLANTED} foreign"})
    with serving(world.endpoint_url) as proxy:
        world.config["regions"]["us"]["endpoint_url"] = proxy.url
        with running(world, "--workers", "2") as daemon:
            daemon.await_ready()
            found = Served(world, daemon, proxy)
            world.put("us", "orders", pk={"S": key}, sk={"N": "1"}, text={"S": f"{PLANTED} new"})
            large = {"S": PLANTED + "x" * (NO_ROOM - len(key))}
            for number in ("2", "3"):
                world.put("us", "orders", pk={"S": key}, sk={"N": number}, text=large)
            wait_until(found.has_begun, "a worker, the conflict or a parked key is missing")
            yield found
