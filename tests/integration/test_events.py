"""Events with the real daemon as a process: killed twice while every sink is down, and events that are refused."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cloudevents.core.base import BaseCloudEvent

from tests.event_consumers import SECRET, Consumer, Receiver, StreamConsumer, WebhookConsumer, aws_consumers, receiver
from tests.integration.harness import Valve, World, eventually, open_world
from tests.integration.test_mesh import MeshUsers, create, mesh, quiet

pytestmark = [pytest.mark.servers, pytest.mark.long]

KEYS, ROUNDS = 6, 15
DOWN_SECONDS = 20.0
TOO_LONG = 300 * 1024
"""Bytes of an item whose event SNS and EventBridge do not take."""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with open_world(tmp_path) as opened:
        yield opened


def clients(world: World, endpoint: str | None = None) -> Any:
    def opened(service: str) -> Any:
        create: Any = world.session.create_client
        return create(
            service,
            region_name="us-east-1",
            endpoint_url=endpoint or world.endpoint,
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )

    return opened


class Truth:
    """What was written: per key the serials in their order; None is a delete."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.serials: dict[str, list[str | None]] = {}

    async def write(self, rounds: int, *, pause: float = 0.05) -> None:
        """Puts and deletes of a few keys, each in turn."""
        async with self._world.client("us") as client:
            for number in range(rounds):
                for key in (f"k{n}" for n in range(KEYS)):
                    history = self.serials.setdefault(key, [])
                    if number % 5 == 4 and history and history[-1] is not None:
                        await client.delete_item(TableName="orders", Key={"pk": {"S": key}})
                        history.append(None)
                    else:
                        serial = uuid.uuid4().hex
                        item = {"pk": {"S": key}, "serial": {"S": serial}, "raw": {"B": bytes.fromhex(serial)}}
                        await client.put_item(TableName="orders", Item=item)
                        history.append(serial)
                await asyncio.sleep(pause)


def changes(events: list[BaseCloudEvent]) -> dict[str, dict[str, str | None]]:
    """Serials per key by the ids of events, in the order in which these came first."""
    found: dict[str, dict[str, str | None]] = {}
    for event in events:
        data: Any = event.get_data()
        ids = found.setdefault(data["key"]["pk"], {})
        serial = data.get("new", {}).get("serial")
        assert ids.setdefault(event.get_id(), serial) == serial, "an id is another event's, too"
    return found


async def test_every_sink_sees_every_change_of_every_key_though_daemon_and_sinks_fail(world: World) -> None:
    """No sink answers for twenty seconds, in which users write and the daemon is killed twice."""
    valves = Valve(world.dynamodb_port), Valve(world.valkey_port)
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(receiver())
        consumers: dict[str, Consumer] = dict(aws_consumers(clients(world)))
        redis_url = f"redis://127.0.0.1:{world.valkey_port}/0"
        consumers |= {"redis_stream": StreamConsumer(redis_url, "us_main"), "webhook": WebhookConsumer(server)}
        entries = [await consumer.create(f"sink-{n}") for n, consumer in enumerate(consumers.values())]
        config = await _configured(world, entries, *(valve.port for valve in valves))
        daemon = world.daemon(config)
        await eventually("leases", lambda: daemon.events("lease_claimed"))
        truth = Truth(world)
        writing = asyncio.ensure_future(truth.write(ROUNDS))
        await _fail(server, valves, daemon)
        await writing
        await truth.write(1)
        seen: dict[str, dict[str, dict[str, str | None]]] = {}

        async def complete() -> bool:
            for name, consumer in consumers.items():
                seen[name] = changes(await consumer.events())
            return all(
                {key: sorted(map(str, ids.values())) for key, ids in found.items()}
                == {key: sorted(map(str, serials)) for key, serials in truth.serials.items()}
                for found in seen.values()
            )

        await eventually("every change at every sink", complete)
        for name, consumer in consumers.items():
            if consumer.ordered:
                assert {key: list(ids.values()) for key, ids in seen[name].items()} == truth.serials, name
        assert len({tuple(sorted(key for ids in found.values() for key in ids)) for found in seen.values()}) == 1
        assert server.bad_signatures == 0
        assert [target["blocked"] for target in daemon.targets().values()] == [None] * len(entries)
        assert "hidden" not in daemon.log.read_text()
        assert str(truth.serials["k0"][0]) not in daemon.log.read_text()
    for valve in valves:
        valve.close()


async def _fail(server: Receiver, valves: Sequence[Valve], daemon: Any) -> None:
    await asyncio.sleep(0.3)
    over = time.monotonic() + DOWN_SECONDS
    server.failing = 503
    for valve in valves:
        valve.close()
    daemon.kill()
    daemon.start()
    await eventually("trouble", lambda: daemon.events("target_blocked") or daemon.events("retrying"))
    server.failing = 500
    daemon.kill()
    daemon.start()
    await asyncio.sleep(over - time.monotonic())
    server.failing = None
    for valve in valves:
        valve.open()


async def test_an_event_that_is_too_long_is_parked_listed_and_holds_nothing(world: World) -> None:
    consumers = aws_consumers(clients(world))
    topic, queue = consumers["sns fifo"], consumers["sqs fifo"]
    entries = [await topic.create("topic"), await queue.create("queue")]
    config = await _configured(world, entries, world.dynamodb_port)
    daemon = world.daemon(config)
    async with world.client("us") as client:
        for serial, size in (("1", 1), ("2", TOO_LONG), ("3", TOO_LONG), ("4", 1)):
            item = {"pk": {"S": "k"}, "serial": {"S": serial}, "text": {"S": "x" * size}}
            await client.put_item(TableName="orders", Item=item)

    async def serials(consumer: Consumer) -> list[str | None]:
        return list(changes(await consumer.events()).get("k", {}).values())

    async def has(consumer: Consumer, *wanted: str) -> bool:
        return await serials(consumer) == list(wanted)

    await eventually("the queue's events", lambda: has(queue, "1", "2", "3", "4"))
    # Their old images make the third and the fourth event too long, too.
    await eventually("the topic's event", lambda: has(topic, "1"))
    await eventually("three rows", lambda: len(_parked(world, config)) == 3)
    rows = _parked(world, config)
    assert {(row["key"]["pk"]["S"], "takes" in row["why"]) for row in rows} == {("k", True)}
    retried = world.command("parked", "retry", "--all", "--json", config=config)
    assert len(_parked(world, config)) == 3, retried.stdout
    assert world.command("parked", "drop", rows[0]["row"], "--yes", "--json", config=config).returncode == 0
    async with clients(world)("s3") as s3:
        await s3.create_bucket(Bucket="long-events")
    stores = await _configured(
        world, [entries[0] | {"oversize": {"s3": "s3://long-events/of"}}, entries[1]], world.dynamodb_port
    )
    assert world.command("parked", "retry", "--all", "--json", config=stores).returncode == 0
    assert _parked(world, config) == []
    sent = [event for event in await topic.events() if event.get_extension("dataref")]
    assert len(sent) == 2
    listed = json.loads(world.command("rules", "--json", config=config).stdout)["rules"]
    assert listed[0]["events"] == ["sns:topic.fifo", "sqs:queue.fifo"]
    refusals = [world.command(command, "orders", config=config).stderr for command in ("verify", "bootstrap")]
    assert ["has no replica" in refusal for refusal in refusals] == [True, True]
    assert daemon.terminate() == 0


async def test_a_webhook_that_answers_400_parks_one_event_and_one_that_answers_410_is_held(world: World) -> None:
    async with receiver() as server:
        entries = [await WebhookConsumer(server).create("hook")]
        daemon = world.daemon(config := await _configured(world, entries, world.dynamodb_port))
        server.answers = [(400, {})]
        async with world.client("us") as client:
            for serial in ("1", "2"):
                await client.put_item(TableName="orders", Item={"pk": {"S": "k"}, "serial": {"S": serial}})
            await eventually("the second event", lambda: len(server.seen) == 1)
            (row,) = _parked(world, config)
            assert row["why"] == f"webhook 127.0.0.1:{server.port} answered 400, so it refuses this event."
            retry = partial(world.command, "parked", "retry", "--all", "--json", config=config)
            assert (await asyncio.to_thread(retry)).returncode == 0
            assert [list(each.values()) for each in changes(server.seen).values()] == [["2", "1"]]
            server.failing = 410
            await client.put_item(TableName="orders", Item={"pk": {"S": "k"}, "serial": {"S": "3"}})
            asked = len(server.requests)
            await eventually("a hold", lambda: "no more events" in json.dumps(daemon.status()))
            await asyncio.sleep(2)
            assert len(server.requests) <= asked + 1
        assert daemon.terminate() == 0


async def test_events_of_a_mesh_are_the_changes_of_its_users_each_from_where_it_was_made(world: World) -> None:
    regions, queue = ["us", "eu"], aws_consumers(clients(world))["sqs fifo"]
    of_redis = {"to": "redis_stream", "cache": "us_main", "stream": "all"}
    entries = [await queue.create("all") | {"region": "us"}, of_redis]
    settings = mesh(world, "active-active", regions, events=entries)
    settings["caches"] = {"us_main": {"region": "us", "url": f"redis://127.0.0.1:{world.valkey_port}/0"}}
    await create(world, regions)
    world.initialise(config := world.write_settings(settings))
    daemon = world.daemon(config)
    users = MeshUsers(world, regions, seed=5, keys=6)
    await users.write(60, per_second=60)
    daemon.kill()
    await users.write(60, per_second=60)
    daemon.start()
    await users.write(40, per_second=60)
    stream = StreamConsumer(f"redis://127.0.0.1:{world.valkey_port}/0", "us_main", stream="all")

    async def complete() -> bool:
        seen = [_contents(await consumer.events()) for consumer in (queue, stream)]
        return all(set(found.values()) - {None} == users.contents for found in seen) and seen[0] == seen[1]

    await eventually("every change of users", complete)
    await eventually("regions that agree", lambda: quiet(world, [daemon], regions))
    assert await complete()
    found = _contents(await queue.events())
    written = [content for content in found.values() if content is not None]
    assert len(written) == len(set(written)), "a change that was brought to a region is an event there"
    tables = {event.get_source().split(":")[3] for event in await queue.events()}
    assert tables == {"us-east-1", "eu-west-1"}


def _contents(events: list[BaseCloudEvent]) -> dict[str, str | None]:
    """What was written, by the ids of events; None is a delete."""
    data: Any
    found: dict[str, str | None] = {}
    for event in events:
        data = event.get_data()
        found[f"{event.get_source()} {event.get_id()}"] = data.get("new", {}).get("content")
    return found


def _parked(world: World, config: Path) -> list[dict[str, Any]]:
    answer = world.command("parked", "list", "--json", config=config)
    assert answer.returncode == 0, answer.stderr
    rows: list[dict[str, Any]] = json.loads(answer.stdout)["parked"]
    return rows


async def _configured(world: World, entries: list[dict[str, Any]], port: int, valkey: int = 0) -> Path:
    """A rule without replicas; the services of its sinks are behind a port of their own."""
    async with world.client("us") as client:
        if "orders" not in (await client.list_tables())["TableNames"]:
            await world.create_table("us", "orders", stream=True)
    settings = world.settings(
        rule={"replicas": [], "cache": [], "events": entries},
        caches={"us_main": {"region": "us", "url": f"redis://127.0.0.1:{valkey or world.valkey_port}/0"}},
        secrets={"hook": SECRET},
    )
    services = ("sqs", "sns", "events", "kinesis", "firehose")
    settings["regions"]["us"]["endpoints"] = dict.fromkeys(services, f"http://127.0.0.1:{port}")
    path = world.write_settings(settings)
    world.initialise(path)
    return path
