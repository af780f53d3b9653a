"""A sink of events as a target: every change, per key in order, at least once, whatever fails."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from replicator.domain.errors import AccessRefused, ReplicatorError, SinkGone, SinkMissing, Unreachable
from replicator.domain.held import HeldId
from replicator.domain.item_events import ItemEvent
from replicator.domain.owed_keys import OwedTo
from replicator.domain.rules import OnRefusal, Rule, Target
from replicator.engine.applying.event_funnel import EventFunnel
from replicator.engine.applying.gate import Gates
from replicator.engine.applying.parking import ParkingBounds
from replicator.laboratory.memory import Fault, Faults, MemorySink, OpenFence
from replicator.ports.targets import Fence
from tests.engine.shard_bench import ShardBench
from tests.engine.world import EU, ORDERS, US, World, eu_rule, rule, slow, target, until

EVENTS = Target(eu_rule().name, US, None, sink="sqs:orders")
TO = OwedTo(ORDERS, EVENTS.target_id)


def event_rule(**choices: Any) -> Rule:
    return rule("orders", EVENTS, **({"refused": OnRefusal.PARK} | choices))


def key_of(event: ItemEvent) -> str:
    key: str = msgspec.json.decode(event.data)["key"]["pk"]
    return key


def histories(world: World) -> dict[str, list[int]]:
    """Sequence numbers per key, in the order in which the sink took them."""
    found: dict[str, list[int]] = {}
    for event in world.sink.taken:
        found.setdefault(key_of(event), []).append(int(event.id.rpartition("/")[2]))
    return found


def is_replay(taken: list[int], written: list[int]) -> bool:
    """Whether events came in order, but for steps back to some earlier one from which all came again."""
    place = -1
    for number in taken:
        at = written.index(number)
        if at > place + 1:
            return False
        place = at
    return place == len(written) - 1


def written(world: World, rounds: int, keys: int = 3) -> dict[str, list[int]]:
    """Change some keys in turn; returns the sequence numbers of each."""
    names = [f"k{number}" for number in range(keys)]
    for value in range(rounds):
        world.write(names, value)
    return {name: list(range(number + 1, rounds * keys + 1, keys)) for number, name in enumerate(names)}


async def test_every_change_is_an_event_of_its_own_and_keys_share_calls() -> None:
    world = World()
    wanted = written(world, 20)
    async with ShardBench(world, event_rule()):
        await until(lambda: histories(world) == wanted)
    assert max(world.sink.calls) == 3


async def test_the_position_moves_only_behind_what_was_taken() -> None:
    world = World()
    world.sink.faults.outage = Unreachable
    wanted = written(world, 3)
    async with ShardBench(world, event_rule()) as bench:
        await asyncio.sleep(60)
        assert (world.sink.taken, bench.observer.of("moved")) == ([], [])
        world.sink.faults.outage = None
        await until(lambda: histories(world) == wanted)


async def test_a_sink_that_is_down_holds_no_replica() -> None:
    world = World()
    world.sink.faults.outage = Unreachable
    world.write(["a", "b"])
    async with ShardBench(world, rule("orders", target("orders", EU), EVENTS)):
        await until(lambda: set(world.holds()) == {"a", "b"})
        assert world.sink.taken == []


@pytest.mark.parametrize("seed", range(20))
async def test_partial_failures_lost_answers_and_kills_keep_each_keys_order(seed: int) -> None:
    world = World()
    world.sink.faults = Faults(seed, before=0.1, after=0.1, throttle=0.05)
    world.sink.entries = Faults(seed + 100, before=0.15, after=0.1, throttle=0.1)
    wanted = written(world, 12)
    for life in range(3):
        bench = ShardBench(world, event_rule())
        await bench.start()
        await until(lambda: len(world.sink.taken) >= 10 * (life + 1))  # noqa: B023 - awaited at once
        await bench.kill()
    async with ShardBench(world, event_rule()):
        await until(lambda: all(history[-1:] == wanted[key][-1:] for key, history in histories(world).items()))
    assert {key: is_replay(taken, wanted[key]) for key, taken in histories(world).items()} == dict.fromkeys(
        wanted, True
    )


async def test_a_refused_event_is_parked_by_its_place_and_later_ones_of_its_key_go_on() -> None:
    world = World()
    wanted = written(world, 1, keys=2)
    async with ShardBench(world, event_rule()) as bench:
        await until(lambda: histories(world) == wanted)
        refused = {event.partition_key for event in world.sink.taken if key_of(event) == "k0"}
        world.sink.poisoned = refused
        world.write(["k0", "k1"], 1)
        world.write(["k0"], 2)
        await until(lambda: len(world.owed.rows) == 2)
        world.sink.poisoned = set()
        world.write(["k0"], 3)
        await until(lambda: histories(world) == {"k0": [1, 6], "k1": [2, 4]})
        rows = [row for (to, _), row in world.owed.rows.items() if to == TO]
        assert sorted(row.sequence for row in rows) == ["3", "5"]
        assert bench.observer.owed["orders/us"].keys == 2
        bodies = [await world.owed.body(row) for row in rows]
        assert all(body and b'"orders/' in body for body in bodies)


async def test_what_was_parked_and_is_taken_when_it_is_read_again_is_settled() -> None:
    world = World()
    world.write(["k0"])
    bench = ShardBench(world, event_rule())
    world.sink.faults.script(None)
    await bench.start()
    await until(lambda: len(world.sink.taken) == 1)
    world.sink.poisoned = {world.sink.taken[0].partition_key}
    world.registry.faults.script()
    world.coordination.faults.outage = Unreachable
    world.write(["k0"], 1)
    await until(lambda: len(world.owed.rows) == 1)
    await bench.kill()
    world.sink.poisoned, world.coordination.faults.outage = set(), None
    async with ShardBench(world, event_rule()):
        await until(lambda: histories(world)["k0"][-1] == 2 and not world.owed.rows)


async def test_too_many_refusals_stop_the_target() -> None:
    world = World()
    world.bounds = ParkingBounds(keys=2)
    wanted = written(world, 1, keys=1)
    async with ShardBench(world, event_rule()) as bench:
        await until(lambda: histories(world) == wanted)
        world.sink.poisoned = {world.sink.taken[0].partition_key}
        for value in range(4):
            world.write(["k0"], value + 1)
        await until(lambda: bool(bench.observer.blocked_keys))
        assert len(world.owed.rows) == 2


@pytest.mark.parametrize("error", [SinkMissing, AccessRefused])
async def test_what_is_wrong_with_the_world_parks_nothing_and_heals(error: type[Exception]) -> None:
    world = World()
    world.sink.faults.outage = error  # type: ignore[assignment]
    wanted = written(world, 2)
    async with ShardBench(world, event_rule()):
        await asyncio.sleep(30)
        assert world.owed.rows == {}
        world.sink.faults.outage = None
        await until(lambda: histories(world) == wanted)


async def test_a_receiver_that_wants_no_more_is_left_alone_until_its_gate_opens() -> None:
    world = World()
    world.sink.faults.outage = SinkGone
    wanted = written(world, 2)
    gates = Gates()
    async with world.process(event_rule(), gates=gates) as process:
        await until(lambda: bool(process.observer.of("blocked")))
        struck = world.sink.faults.struck
        await asyncio.sleep(120)
        assert world.sink.faults.struck == struck
        world.sink.faults.outage = None
        gates.of(HeldId(EVENTS.rule, ORDERS, EVENTS.target_id)).open()
        await until(lambda: histories(world) == wanted)


# -- the funnel --------------------------------------------------------------------------------------------------------


def event(key: str) -> ItemEvent:
    return ItemEvent(f"orders/l/{key}", "arn", "t", "{}", 0.0, key, msgspec.Raw(b'{"key":{"pk":"%b"}}' % key.encode()))


async def test_a_sender_that_is_cancelled_in_the_middle_lets_the_others_try_again() -> None:
    started = asyncio.Event()

    async def stuck(_: str) -> None:
        started.set()
        await asyncio.sleep(1000)

    sink = MemorySink(Faults(pause=stuck))
    funnel = EventFunnel(sink)
    tasks = [asyncio.ensure_future(funnel.send(event(key), OpenFence())) for key in "abc"]
    await started.wait()
    tasks[0].cancel()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(each) for each in found] == [asyncio.CancelledError, Unreachable, Unreachable]
    sink.faults = Faults()
    await funnel.send(event("a"), OpenFence())
    assert [each.id for each in sink.taken] == ["orders/l/a"]


async def test_a_lost_answer_of_one_event_is_told_to_its_sender_alone() -> None:
    sink = MemorySink()
    sink.entries.script(None, Fault.AFTER, None)
    funnel = EventFunnel(sink)
    found = await asyncio.gather(*(funnel.send(event(key), OpenFence()) for key in "abc"), return_exceptions=True)
    assert [type(each) for each in found] == [type(None), Unreachable, type(None)]
    assert len(sink.calls) == 1


def numbered(key: str, number: int) -> ItemEvent:
    return ItemEvent(f"orders/1/{number}", "arn", "dynamodb.item.modified", "{}", 0.0, key, msgspec.Raw(b"{}"))


async def test_what_is_under_way_of_a_key_never_comes_behind_what_a_later_sender_sends() -> None:
    """A pipeline that begins anew sends a key's event while that of its predecessor is still on its way."""
    sink = MemorySink()
    slow(sink.faults, 5)
    funnel = EventFunnel(sink)
    carrier = asyncio.ensure_future(funnel.send(numbered("other", 1), OpenFence()))
    gone = asyncio.ensure_future(funnel.send(numbered("k", 2), OpenFence()))
    await asyncio.sleep(1)
    gone.cancel()
    sink.faults.pause = None
    await funnel.send(numbered("k", 2), OpenFence())
    await funnel.send(numbered("k", 3), OpenFence())
    await carrier
    assert [each.id[-1] for each in sink.taken if each.partition_key == "k"] == ["2", "2", "3"]


async def test_a_sender_that_gives_up_before_its_event_is_begun_holds_no_later_one() -> None:
    sink = MemorySink(most=1, at_once=1)
    slow(sink.faults, 5)
    funnel = EventFunnel(sink)
    carrier = asyncio.ensure_future(funnel.send(numbered("other", 1), OpenFence()))
    gone = asyncio.ensure_future(funnel.send(numbered("k", 2), OpenFence()))
    await asyncio.sleep(1)
    gone.cancel()
    await funnel.send(numbered("k", 3), OpenFence())
    await carrier
    assert [each.id[-1] for each in sink.taken] == ["1", "3"]


class NoSink(MemorySink):
    """A sink whose adapter answers too little."""

    async def send(self, events: Sequence[ItemEvent], fences: Sequence[Fence] = ()) -> list[ReplicatorError | None]:
        return []


async def test_an_answer_that_lacks_events_leaves_no_sender_waiting() -> None:
    funnel = EventFunnel(NoSink())
    answers = await asyncio.gather(
        *(funnel.send(numbered(key, 1), OpenFence()) for key in "ab"), return_exceptions=True
    )
    assert {type(answer) for answer in answers} == {ValueError, Unreachable}
