"""The demo: a real run ends identical, and its comparison sees every kind of difference."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any
from urllib.request import urlopen

import msgspec
import pytest

from replicator.demo.compare import Findings, caught_up, compare
from replicator.demo.dynamodb import Typed, local_regions
from replicator.demo.items import Keyspace, KeyState, keyspace
from replicator.demo.lag import LagSampler, figures
from replicator.demo.layout import ORDERED, ORDERS, SOURCE
from replicator.demo.reader import CacheReader, Read, cache_readers
from replicator.demo.traffic import Writers, warm
from replicator.demo.world import SIDE_TABLE, World, open_world
from replicator.domain.errors import Unreachable
from replicator.domain.records import item_key
from replicator.domain.versions import STAMP
from replicator.laboratory import servers
from replicator.laboratory.servers import DemoServersMissing, MiniStack, ServerFailed, Valkey, require_servers
from tests.integration.harness import eventually
from tests.patience import PATIENT_SECONDS

pytestmark = pytest.mark.servers

REPLICAS = [region for region in ORDERED.regions if region != SOURCE]


# -- the command ---------------------------------------------------------------------------------------------------


@contextmanager
def demo_process(directory: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "replicator", "demo", *arguments]
    environment = os.environ | {"TMPDIR": str(directory)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def endpoint(process: subprocess.Popen[str]) -> str:
    """Read the progress of a demo up to the line that names its endpoint."""
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(r"DynamoDB of 3 regions at (http://\S+);", line):
            return found[1]
    raise AssertionError("the demo ended without naming its endpoint")


def result(process: subprocess.Popen[str], seconds: float = PATIENT_SECONDS) -> tuple[int, dict[str, Any], str]:
    output, progress = process.communicate(timeout=seconds)
    lines = output.splitlines()
    return process.returncode, json.loads(lines[-1]) if len(lines) == 1 else {}, progress


@pytest.mark.slow
def test_a_short_run_ends_identical_with_enough_compared(tmp_path: Path) -> None:
    with demo_process(tmp_path, "--duration", "4", "--rate", "60", "--events", "--json") as process:
        code, report, progress = result(process)
    assert code == 0, progress
    assert report["verdict"] == "identical"
    assert report["differences"] == []
    assert report["daemon_exit_code"] == 0
    assert report["compared"]["cache_entries"] >= 1000
    assert all(count > 0 for count in report["compared"]["items"].values())
    assert set(report["source"]["kinds"]) >= {"creates", "updates", "replaces", "deletes", "re-creates"}
    for region in REPLICAS:
        lag = report["replicas"][region]["lag"]
        assert lag["samples"] > 0
        assert 0 < lag["p50_ms"] <= lag["p99_ms"] <= lag["max_ms"]
        assert lag["never_seen"] == 0
    consumers = report["events"]["consumers"]
    assert len(consumers) == 6
    assert all(consumer["changes"] > 0 for consumer in consumers.values())
    assert report["events"]["refused_requests"] > 0
    for cache in report["caches"].values():
        assert cache["readers"]["hits"] > 0
        assert cache["readers"]["fills"] > 0


@pytest.mark.slow
def test_no_entry_stays_stale_behind_restarts_a_kill_and_a_failover(tmp_path: Path) -> None:
    arguments = ("--cache", "refresh", "--readers", "6", "--chaos", "--duration", "8", "--json")
    with demo_process(tmp_path, *arguments) as process:
        code, report, progress = result(process)
    assert code == 0, progress
    assert report["verdict"] == "never stale for good"
    assert report["permanently_stale"] == 0
    assert [failure["as_meant"] for failure in report["failures"]] == [True] * 4
    for cache in report["caches"].values():
        assert cache["reads"]["hit"] > 0
        assert cache["reads"]["down"] > 0
        assert set(cache["horizons_s"]) == {"1", "5"}


@pytest.mark.slow
def test_a_replica_that_somebody_else_wrote_to_ends_with_exit_code_1(tmp_path: Path) -> None:
    with demo_process(tmp_path, "--duration", "1", "--rate", "30", "--json") as process:
        asyncio.run(write_to_a_replica(endpoint(process)))
        code, report, progress = result(process)
    assert code == 1, progress
    assert report["verdict"] == "different"
    assert any("customer=nobody, order=1: is not at the source" in line for line in report["differences"])


async def write_to_a_replica(endpoint_url: str) -> None:
    item: Typed = {"customer": {"S": "nobody"}, "order": {"N": "1"}}
    async with local_regions(endpoint_url, ORDERED.regions) as regions, asyncio.timeout(PATIENT_SECONDS):
        while ORDERS.names["eu"].encode() not in await regions["eu"].call("ListTables", {}):  # noqa: ASYNC110 - a server
            await asyncio.sleep(0.02)
        await regions["eu"].put(ORDERS.names["eu"], item)


@pytest.mark.slow
def test_an_interrupted_run_leaves_no_process_behind(tmp_path: Path) -> None:
    with demo_process(tmp_path, "--duration", "30", "--json") as process:
        url = endpoint(process)
        process.send_signal(signal.SIGINT)
        code, _, progress = result(process)
    assert code == 1, progress
    assert "interrupted" in progress
    assert "Traceback" not in progress
    asyncio.run(expect_nobody_at(url))


async def expect_nobody_at(endpoint_url: str) -> None:
    async with local_regions(endpoint_url, ORDERED.regions) as regions:
        with pytest.raises(Unreachable):
            await regions["us"].call("ListTables", {})


@pytest.mark.slow
def test_a_kept_world_runs_until_it_is_interrupted(tmp_path: Path) -> None:
    with demo_process(tmp_path, "--duration", "1", "--rate", "20", "--keep") as process:
        assert process.stdout is not None
        output = list(itertools.takewhile(lambda line: "configuration and logs" not in line, process.stdout))
        status = next(line.split()[-1] for line in output if "curl" in line and line.endswith("/status\n"))
        with urlopen(status, timeout=PATIENT_SECONDS) as answer:
            rules = json.load(answer)["rules"]
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=PATIENT_SECONDS)
    assert "verdict   identical\n" in output
    assert [rule["name"] for rule in rules] == ["orders", "sessions"]
    assert "the daemon's exit code: 0" in rest
    assert process.returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the daemon in /proc")
def test_a_daemon_that_dies_ends_the_demo_with_its_last_words(tmp_path: Path) -> None:
    with demo_process(tmp_path, "--duration", "60", "--json") as process:
        assert process.stderr is not None
        assert any("writes, " in line for line in process.stderr)
        os.kill(daemon_of(process.pid), signal.SIGKILL)
        code, _, progress = result(process)
    assert code == 1, progress
    assert "replicator run ended with exit code -9 while it was needed; the end of" in progress
    assert "rule_applied" in progress
    assert "Traceback" not in progress


def daemon_of(parent: int) -> int:
    for found in Path("/proc").glob("[0-9]*"):
        try:
            its_parent = int((found / "stat").read_text().rpartition(")")[2].split()[1])
            arguments = (found / "cmdline").read_text().split("\0")
        except OSError:
            continue
        if its_parent == parent and "replicator" in arguments and "run" in arguments:
            return int(found.name)
    raise AssertionError("there is no daemon")


# -- the comparison ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Scene:
    """A world that was replicated by hand, as the protocol asks."""

    world: World
    keys: Keyspace[KeyState]
    readers: tuple[CacheReader, ...]

    async def compare(self) -> Findings:
        return await compare(self.world, self.keys, self.readers)

    def live(self) -> list[KeyState]:
        return [state for state in self.keys.of(ORDERS) if state.item is not None]

    def gone(self) -> list[KeyState]:
        return [state for state in self.keys.of(ORDERS) if state.deleted and state.item is None]

    def reader(self, name: str) -> CacheReader:
        return next(reader for reader in self.readers if reader.cache.name == name)

    async def store(self, cache: str, state: KeyState, entry: str) -> None:
        reader = self.reader(cache)
        await reader.client.set(reader.key(state), entry)


def values(state: KeyState) -> list[str]:
    return [value for typed in state.key.values() for value in typed.values()]


def version(state: KeyState) -> str:
    return f"{state.counter:056d}"


async def replicate_by_hand(world: World, keys: Keyspace[KeyState]) -> None:
    for region in REPLICAS:
        side = {
            "TableName": SIDE_TABLE,
            "BillingMode": "PAY_PER_REQUEST",
            "AttributeDefinitions": [{"AttributeName": "k", "AttributeType": "S"}],
            "KeySchema": [{"AttributeName": "k", "KeyType": "HASH"}],
        }
        await world.regions[region].call("CreateTable", side)
        for table in world.tables:
            name = table.names[region]
            states = keys.of(table)
            items = [state.item | {STAMP: {"S": version(state)}} for state in states if state.item]
            await world.regions[region].put_all(name, items)
            rows: list[Typed] = [
                {"k": {"S": item_key(msgspec.json.encode(state.key)).side_key(name)}, "v": {"S": version(state)}}
                for state in states
                if state.deleted and state.item is None
            ]
            await world.regions[region].put_all(SIDE_TABLE, rows)


@asynccontextmanager
async def replicated(directory: Path) -> AsyncIterator[Scene]:
    async with open_world(directory) as world:
        await world.create_tables()
        keys = keyspace(Random(1))
        writers = Writers(world, keys, Random(2), ())
        await writers.seed()
        for state in keys.keys[:300]:
            await writers.write(state)
        await replicate_by_hand(world, keys)
        readers = cache_readers(world)
        try:
            for reader in readers:
                await warm(reader, keys)
            yield Scene(world, keys, readers)
        finally:
            for reader in readers:
                await reader.client.aclose()


async def alter_the_replica(scene: Scene, state: KeyState) -> None:
    await scene.world.regions["ap"].update("orders-copy", state.key, {"total": {"N": "41"}})


async def lose_an_item(scene: Scene, state: KeyState) -> None:
    await scene.world.regions["eu"].delete("orders", state.key)


async def resurrect_an_item(scene: Scene, state: KeyState) -> None:
    await scene.world.regions["ap"].put("orders-copy", {**state.key, STAMP: {"S": "0" * 56}})


async def forget_a_tombstone(scene: Scene, state: KeyState) -> None:
    side_key = item_key(msgspec.json.encode(state.key)).side_key("orders")
    await scene.world.regions["eu"].delete(SIDE_TABLE, {"k": {"S": side_key}})


async def wipe_a_stamp(scene: Scene, state: KeyState) -> None:
    assert state.item is not None
    await scene.world.regions["eu"].put("orders", state.item)


async def change_the_source(scene: Scene, state: KeyState) -> None:
    await scene.world.regions["us"].update("orders", state.key, {"total": {"N": "41"}})


async def empty_the_source(scene: Scene, state: KeyState) -> None:
    await scene.world.regions["us"].delete("orders", state.key)


async def age_an_entry(scene: Scene, state: KeyState) -> None:
    await scene.store("eu_cache", state, f"V:{'0' * 56}|{{}}")


async def change_a_payload(scene: Scene, state: KeyState) -> None:
    await scene.store("ap_cache", state, f"V:{version(state)}|" + '{"customer":{"S":"x"}}')


async def leave_a_stamp_in_a_payload(scene: Scene, state: KeyState) -> None:
    payload = msgspec.json.encode((state.item or {}) | {STAMP: {"S": "x"}}).decode()
    await scene.store("eu_cache", state, f"V:{version(state)}|{payload}")


async def mark_a_live_item(scene: Scene, state: KeyState) -> None:
    await scene.store("eu_cache", state, f"T:{version(state)}")


async def keep_a_deleted_item(scene: Scene, state: KeyState) -> None:
    await scene.store("ap_cache", state, f"V:{'0' * 56}|{{}}")


async def mark_with_another_version(scene: Scene, state: KeyState) -> None:
    await scene.store("eu_cache", state, f"T:{'9' * 56}")


async def store_rubbish(scene: Scene, state: KeyState) -> None:
    await scene.store("eu_cache", state, "rubbish")


async def store_half_an_entry(scene: Scene, state: KeyState) -> None:
    await scene.store("eu_cache", state, f"V:{version(state)}|{{")


LIVE: dict[Callable[[Scene, KeyState], Awaitable[None]], str] = {
    alter_the_replica: r"ap/orders-copy: .*: differs from the source \(total\)",
    lose_an_item: r"eu/orders: .*: is missing",
    wipe_a_stamp: r"eu/orders: .*: carries no version",
    change_the_source: r"us/orders: .*: is not what was written last",
    empty_the_source: r"us/orders: .*: is missing, but was written",
    age_an_entry: r"eu_cache: .*: is stale",
    change_a_payload: r"ap_cache: .*: holds another content",
    leave_a_stamp_in_a_payload: r"eu_cache: .*: holds another content",
    mark_a_live_item: r"eu_cache: .*: says absent, but the replica holds the item",
    store_rubbish: r"eu_cache: .*: is no entry of the cache protocol",
    store_half_an_entry: r"eu_cache: .*: is not an item's JSON",
}
GONE: dict[Callable[[Scene, KeyState], Awaitable[None]], str] = {
    resurrect_an_item: r"ap/orders-copy: .*: was resurrected",
    forget_a_tombstone: r"eu/orders: .*: was deleted without a tombstone",
    keep_a_deleted_item: r"ap_cache: .*: holds an item that the replica no longer has",
    mark_with_another_version: r"eu_cache: .*: is a deletion marker of another version",
}
UNKNOWN = {
    r"eu/orders: customer=nobody, order=1: is not at the source",
    r"us/orders: customer=anybody, order=1: was never written",
    r"eu_cache: order:nobody:1: is an entry of no known item",
}


async def test_a_world_replicated_as_the_protocol_asks_is_identical_and_an_empty_cache_is_not_enough(
    tmp_path: Path,
) -> None:
    async with replicated(tmp_path) as scene:
        assert await caught_up(scene.world, scene.keys)
        findings = await scene.compare()
        await scene.reader("eu_cache").client.flushall()
        too_little = await scene.compare()
    assert findings.differences == []
    assert findings.live_entries >= 1000
    assert findings.tombstones > 0
    assert findings.enough
    assert too_little.identical
    assert not too_little.enough


async def test_the_comparison_sees_each_kind_of_difference_and_no_other(tmp_path: Path) -> None:
    async with replicated(tmp_path) as scene:
        cases = [*zip(LIVE, scene.live(), strict=False), *zip(GONE, scene.gone(), strict=False)]
        assert len(cases) == len(LIVE) + len(GONE)
        for sabotage, state in cases:
            await sabotage(scene, state)
        await scene.world.regions["eu"].put("orders", {"customer": {"S": "nobody"}, "order": {"N": "1"}})
        await scene.world.regions["us"].put("orders", {"customer": {"S": "anybody"}, "order": {"N": "1"}})
        await scene.reader("eu_cache").client.set("order:nobody:1", "V:|{}")
        findings = await scene.compare()
    found = {str(difference) for difference in findings.differences}
    for sabotage, state in cases:
        shown = {line for line in found if state.shown in line or f"order:{':'.join(values(state))}:" in line}
        assert any(re.match((LIVE | GONE)[sabotage], line) for line in shown), (sabotage.__name__, shown)
        found -= shown
    for message in UNKNOWN:
        assert any(re.match(message, line) for line in found), message
    assert all("nobody" in line or "anybody" in line for line in found), found


# -- its parts -----------------------------------------------------------------------------------------------------


async def test_a_sampled_lag_ends_when_the_write_is_visible(tmp_path: Path) -> None:
    async with replicated(tmp_path) as scene:
        sampler = LagSampler("eu", scene.world.regions["eu"], scene.world.tables, [SOURCE])
        writers = Writers(scene.world, scene.keys, Random(3), (sampler,))
        state = scene.live()[0]
        stop, began = asyncio.Event(), time.monotonic()
        async with asyncio.TaskGroup() as group:
            group.create_task(sampler.run(stop))
            lags = sampler.lags[SOURCE]
            while state.item is None or lags.unseen == 0:
                await writers.write(state)
            await asyncio.sleep(0.3)
            assert lags.milliseconds == []
            await scene.world.regions["eu"].put("orders", state.item | {STAMP: {"S": version(state)}})
            await eventually("the lag", lambda: lags.milliseconds)
            stop.set()
    assert len(lags.milliseconds) == 1
    assert 290 <= lags.milliseconds[0] <= (time.monotonic() - began) * 1_000


def test_the_figures_of_a_distribution_are_of_the_nearest_rank() -> None:
    assert figures([]).p50_ms is None
    assert figures([7]).p99_ms == 7
    of_a_hundred = figures(list(range(101)))
    assert (of_a_hundred.p50_ms, of_a_hundred.p99_ms, of_a_hundred.max_ms) == (50, 99, 100)


async def test_a_reader_fills_only_under_its_lease(tmp_path: Path) -> None:
    async with replicated(tmp_path) as scene:
        reader, state = scene.reader("ap_cache"), scene.live()[0]
        key = reader.key(state)
        assert await reader.read(state) is Read.HIT
        await reader.client.set(key, "L:somebody")
        assert await reader.read(state) is Read.WAITED
        assert await reader.client.get(key) == b"L:somebody"
        await reader.client.unlink(key)
        assert await reader.read(state) is Read.FILLED
        await reader.client.set(key, f"T:{version(state)}")
        assert await reader.read(state) is Read.ABSENT


def test_another_version_of_a_server_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(servers.REQUIRED, "ministack", "1.0.0")
    with pytest.raises(DemoServersMissing, match=r"need ministack 1\.0\.0, but .* is installed") as refusal:
        require_servers()
    assert "pip install 'replicator[demo]'" in refusal.value.sentence


def test_a_missing_server_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(servers.REQUIRED, "no-such-server", "1.0")
    with pytest.raises(DemoServersMissing, match=r"need no-such-server 1\.0, which is not installed"):
        require_servers()


def test_a_server_whose_port_is_taken_says_so(tmp_path: Path) -> None:
    with Valkey.start(tmp_path) as first, pytest.raises(ServerFailed, match="Address already in use"):
        Valkey.start(tmp_path, port=first.port)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with their parent")
def test_servers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from replicator.laboratory.servers import MiniStack, Valkey\n"
        "directory = Path(sys.argv[1]); servers = MiniStack.start(directory), Valkey.start(directory)\n"
        "print(*(server.child.process.pid for server in servers), flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        parent.kill()
    assert len(pids) == 2
    for pid in pids:
        assert ended(pid)


def ended(pid: int) -> bool:
    """Whether a process ends within a minute; it may wait as a zombie until its status is read."""
    for _ in range(3000):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        os.sched_yield()
        signal.sigtimedwait([], 0.02)
    return False


def test_ministack_listens_on_the_loopback_only(tmp_path: Path) -> None:
    with MiniStack.start(tmp_path) as server:
        assert server.endpoint_url == f"http://127.0.0.1:{server.port}"
        assert server.answers()
    assert not server.answers()
    assert not server.child.alive
