"""The true lag of replicas, measured outside the program: when an item was written, and when a replica showed it.

Writers and readers are threads with plain connections to the server itself, behind no proxy, so that neither an outage
nor a test that blocks disturbs them. An item that did not arrive yet counts with the time for which it is awaited:
what is missing makes a lag longer, never shorter.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from http.client import HTTPConnection
from statistics import quantiles
from types import TracebackType
from typing import Any, Self

EVERY_SECONDS = 0.25
LOOK_SECONDS = 0.05
_AWAITED = 25
"""How many missing items are looked for at once, oldest first."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table in a region, as AWS calls it."""

    region: str
    name: str = "orders"


class Direct:
    """Calls to the server with nothing between; it does not look at signatures, only at the region in them."""

    def __init__(self, port: int, region: str) -> None:
        self._connection = HTTPConnection("127.0.0.1", port, timeout=60)
        self._scope = f"testing/20260101/{region}/dynamodb/aws4_request"

    def call(self, operation: str, **request: Any) -> dict[str, Any]:
        """One call; its answer."""
        headers = {
            "X-Amz-Target": f"DynamoDB_20120810.{operation}",
            "Content-Type": "application/x-amz-json-1.0",
            "Authorization": f"AWS4-HMAC-SHA256 Credential={self._scope}, SignedHeaders=host, Signature=0",
        }
        self._connection.request("POST", "/", json.dumps(request), headers)
        with self._connection.getresponse() as response:
            body = response.read()
            assert response.status == 200, f"{operation} on {request}: {response.status} {body[:300]!r}"
        answer: dict[str, Any] = json.loads(body)
        return answer

    def close(self) -> None:
        """End the connection."""
        self._connection.close()


@dataclass(slots=True)
class _Path:
    """From one table to another: which of the items written at the first are still awaited at the second."""

    origin: str
    destination: str
    written: list[tuple[str, float]] = field(default_factory=list)
    """Keys in their order, with the time of each: shared by all paths of an origin."""
    arrived: dict[str, float] = field(default_factory=dict)
    first_missing: int = 0


class TrueLag:
    """Writers at some tables, and readers of every path; times are of `time.monotonic`."""

    def __init__(
        self,
        port: int,
        tables: dict[str, Table],
        paths: Iterable[tuple[str, str]],
        *,
        every: float = EVERY_SECONDS,
        looks: float = LOOK_SECONDS,
        **item: Any,
    ) -> None:
        """`tables`: by a name of the test's; `item`: attributes of every item, as values on the wire.

        `every` and `looks`: seconds between two writes and between two looks.
        """
        self._port = port
        self._tables = tables
        self._every = every
        self._looks = looks
        self._item = item
        written: dict[str, list[tuple[str, float]]] = {}
        self._paths = {
            (origin, destination): _Path(origin, destination, written.setdefault(origin, []))
            for origin, destination in paths
        }
        self._written = written
        self._stop, self._stop_reading = threading.Event(), threading.Event()
        self._failed: list[BaseException] = []
        self._writers = [self._thread(self._write, tables[each].region, each) for each in written]
        regions = {tables[destination].region for _, destination in self._paths}
        self._readers = [self._thread(self._read, each, each) for each in regions]

    def __enter__(self) -> Self:
        """Begin."""
        for thread in (*self._writers, *self._readers):
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End."""
        self.stop_writing()
        self._stop_reading.set()
        for thread in self._readers:
            thread.join()
        if kind is None:
            assert not self._failed, self._failed

    def stop_writing(self) -> None:
        """No more items; those that were written are awaited still."""
        self._stop.set()
        for thread in self._writers:
            thread.join()

    def _thread(self, work: Any, region: str, subject: str) -> threading.Thread:
        return threading.Thread(target=self._run, args=(work, region, subject), daemon=True)

    def _run(self, work: Any, region: str, subject: str) -> None:
        direct = Direct(self._port, region)
        try:
            work(direct, subject)
        except BaseException as error:  # noqa: BLE001 - the test raises it at its end
            self._failed.append(error)
        finally:
            direct.close()

    def _write(self, direct: Direct, origin: str) -> None:
        written = self._written[origin]
        while not self._stop.wait(self._every):
            key = f"lag-{origin}-{len(written)}"
            began = time.monotonic()
            direct.call("PutItem", TableName=self._tables[origin].name, Item={"pk": {"S": key}, **self._item})
            written.append((key, began))

    def _read(self, direct: Direct, region: str) -> None:
        """Look at every table of a region in turn."""
        paths = [path for path in self._paths.values() if self._tables[path.destination].region == region]
        while not self._stop_reading.wait(self._looks):
            for path in paths:
                keys = self._missing(path)
                if not keys:
                    continue
                table = self._tables[path.destination].name
                asked = {table: {"Keys": [{"pk": {"S": key}} for key in keys], "ConsistentRead": True}}
                found = direct.call("BatchGetItem", RequestItems=asked)["Responses"][table]
                now = time.monotonic()
                path.arrived |= {item["pk"]["S"]: now for item in found}

    @staticmethod
    def _missing(path: _Path) -> list[str]:
        while path.first_missing < len(path.written) and path.written[path.first_missing][0] in path.arrived:
            path.first_missing += 1
        waiting = path.written[path.first_missing : path.first_missing + _AWAITED]
        return [key for key, _ in waiting if key not in path.arrived]

    # -- what was measured ---------------------------------------------------------------------------------------------

    def lags(self, origin: str, destination: str, since: float, until: float) -> list[float]:
        """Lags of the items that were written in a stretch of time, as far as is known now."""
        path, now = self._paths[origin, destination], time.monotonic()
        return [path.arrived.get(key, now) - began for key, began in tuple(path.written) if since <= began < until]

    def is_level(self, origin: str, destination: str) -> bool:
        """Whether something arrived, and nothing that was written longer than a second ago is missing."""
        path, now = self._paths[origin, destination], time.monotonic()
        first = path.first_missing
        return bool(path.arrived) and (first >= len(path.written) or path.written[first][1] > now - 1)

    def oldest_missing(self, origin: str, destination: str) -> float:
        """How long ago the oldest item was written that is missing; 0 when none is."""
        path = self._paths[origin, destination]
        waiting = tuple(path.written[path.first_missing : path.first_missing + 1])
        return time.monotonic() - waiting[0][1] if waiting and waiting[0][0] not in path.arrived else 0.0

    def wait_until_level(self, origin: str, destination: str, seconds: float) -> float:
        """Wait for that; returns after how many seconds."""
        began = time.monotonic()
        while not self.is_level(origin, destination):
            assert time.monotonic() < began + seconds, f"{destination} was not level with {origin} in {seconds} s"
            time.sleep(LOOK_SECONDS)
        return time.monotonic() - began

    def figures(self, origin: str, destination: str, since: float, until: float) -> Figures:
        """Percentiles of a stretch of time."""
        return Figures.of(self.lags(origin, destination, since, until))

    def keys(self, origin: str) -> set[str]:
        """What was written there."""
        return {key for key, _ in self._written[origin]}


@dataclass(frozen=True, slots=True)
class Figures:
    """Lags in seconds."""

    count: int
    p50: float
    p99: float
    greatest: float

    @classmethod
    def of(cls, lags: list[float]) -> Figures:
        """The figures of some lags, two at least."""
        cuts = quantiles(lags, n=100, method="inclusive")
        return cls(len(lags), cuts[49], cuts[98], max(lags))

    def __str__(self) -> str:
        """For people."""
        return f"{self.count} items, lag p50 {self.p50:.2f} s, p99 {self.p99:.2f} s, longest {self.greatest:.2f} s"
