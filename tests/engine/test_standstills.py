"""Nothing stands still in silence: what waits is reported while it lasts, whatever should work, and taken back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from replicator.domain.errors import ShardGone, Unreachable
from replicator.domain.identifiers import RuleName, ShardId, WorkerId
from replicator.domain.progress import HORIZON
from replicator.domain.shards.leases import Seat
from replicator.domain.shards.lineage import Shard
from replicator.domain.shards.standstill import Why
from replicator.domain.values import replace
from replicator.engine.limits import Limits
from replicator.laboratory.memory import Faults
from tests.engine.test_coordinator import replace_stream
from tests.engine.world import AP, EU, Process, World, eu_rule, hold, rule, target, until

S0, S1 = ShardId("s0"), ShardId("s1")
COPIES = rule("copies", target("copies", AP))
BOTH = rule("orders", target("orders", EU), target("orders", AP))
QUICK = Limits(stall_seconds=20.0, drained_seconds=5.0)


def standing(process: Process, name: str = "orders") -> set[tuple[Why, tuple[str, ...]]]:
    """What stands still now, by cause and shards."""
    found = [each for told in process.observer.standing.values() for each in told if each.rule == name]
    return {(each.why, tuple(each.shards)) for each in found}


async def bystander(world: World) -> tuple[Process, WorkerId]:
    """A worker of the group that lives and reads nothing."""
    process = world.process()
    process.sources.put(())
    process.start()
    await until(lambda: bool(process.observer.of("session_began")))
    await asyncio.sleep(2)
    return process, process.observer.of("session_began")[-1][0]


# -- rows that no worker reads -----------------------------------------------------------------------------------------


async def test_a_row_whose_owner_lives_and_does_not_read_it_is_told() -> None:
    world = World()
    async with world.process(limits=QUICK) as process:
        world.put("a", 1)
        await until(world.same)
        other, owner = await bystander(world)
        world.coordination.put(world.ref, replace(world.row(), owner=owner, epoch=9, serves=frozenset()))
        world.put("b", 1)
        await until(lambda: standing(process) == {(Why.OTHER_CONFIGURATION, ("s0",))}, within=90)
        await other.kill()
        await until(world.same)
        await until(lambda: standing(process) == set())


async def test_a_shard_that_went_to_an_older_configuration_is_told_although_the_rule_had_begun_it() -> None:
    world = World()
    async with world.process(eu_rule(), COPIES) as process:
        world.put("a", 1)
        await until(lambda: world.same() and world.same(AP))
        await asyncio.sleep(5)
        await process.drain()
    async with world.process() as outdated:
        await until(lambda: world.owner() is not None)
        async with world.process(eu_rule(), COPIES, limits=QUICK) as process:
            world.put("b", 1)
            await until(lambda: standing(process, "copies") == {(Why.OTHER_CONFIGURATION, ("s0",))}, within=90)
            assert standing(process, "orders") == set()
            await outdated.drain()
            await until(lambda: world.same(AP))
            await until(lambda: standing(process, "copies") == set())


async def test_a_seat_whose_owner_lives_and_does_not_list_is_taken() -> None:
    """Nothing lists the stream, so a shard whose parent was read by a former session would never be found."""
    world = World()
    world.put("a", 1)
    async with world.process(limits=QUICK) as process:
        await until(world.same)
        world.roll("s0", "s1")
        world.streams.hide(world.ref, S1)
        await until(lambda: world.stored() == "SHARD_END")
        await process.drain()
    other, owner = await bystander(world)
    world.coordination._seats[world.ref.region, world.ref.arn] = Seat(owner, 7)
    world.put("b", 1)
    world.reveal_all()
    async with world.process(limits=QUICK):
        await until(world.same, within=150)
        seat = world.coordination.seat(world.ref)
        assert seat is not None
        assert seat.owner != owner
    await other.kill()


@pytest.mark.no_cover  # much happens, and nothing that shorter tests do not reach
async def test_a_seat_stays_with_the_worker_that_lists() -> None:
    world = World()
    async with world.process(limits=QUICK) as first, world.process(limits=QUICK):
        await until(lambda: world.coordination.seat(world.ref) is not None)
        before = world.coordination.seat(world.ref)
        await asyncio.sleep(1000)
        after = world.coordination.seat(world.ref)
        assert before is not None
        assert after is not None
        assert after.owner == before.owner
        assert 25 <= after.epoch - before.epoch <= 34, "it is renewed twice a minute"
        assert standing(first) == set()


async def test_a_seat_that_could_not_be_left_at_once_is_left_later() -> None:
    world = World()
    old = world.ref
    refused = 0

    async def refuse(call: str) -> None:
        nonlocal refused
        seat = world.coordination.seat(old)
        if call == "take_seat" and seat is not None and seat.owner is not None and refused < 5:
            refused += 1
            raise Unreachable("The table does not answer.")

    async with world.process() as process:
        world.put("a", 1)
        await until(world.same)
        replace_stream(world)
        world.put("b", 1)
        world.coordination.faults.pause = refuse
        await until(world.same, within=120)
        await until(lambda: world.coordination.seat(old) == Seat(None, 2), within=120)
        assert refused == 5
        await until(lambda: process.observer.troubles == {})


async def test_an_end_without_a_child_is_told_until_the_child_is_listed() -> None:
    world = World("s0", "t0")
    async with world.process(limits=QUICK) as process:
        world.put("a", 1)
        world.roll("s0", "s1")
        world.streams.hide(world.ref, S1)
        await until(lambda: standing(process) == {(Why.NO_CHILD, ("s0",))}, within=120)
        world.reveal_all()
        await until(lambda: standing(process) == set(), within=60)


@pytest.mark.no_cover  # much happens, and nothing that shorter tests do not reach
async def test_an_end_without_a_child_is_named_when_the_stream_does_not_list_it_any_more() -> None:
    world = World("s0", "t0")
    async with world.process(limits=QUICK) as process:
        world.put("a", 1)
        world.roll("s0", "s1")
        world.streams.hide(world.ref, S1)
        await until(lambda: world.stored("s0") == "SHARD_END")
        world.streams.remove_shard(world.ref, S0)
        await until(lambda: world.row("s0").vanished, within=300)
        await asyncio.sleep(1200)
        assert standing(process) == {(Why.NO_CHILD, ("s0",))}
        world.reveal_all()
        await until(lambda: standing(process) == set(), within=300)


async def test_a_shard_that_is_given_back_and_waits_for_a_write_that_never_returns_is_named() -> None:
    world = World("s0", "s1")
    async with world.process(eu_rule(), COPIES, limits=QUICK) as process:
        await until(lambda: {world.owner("s0"), world.owner("s1")} == {WorkerId("p1.1")})
        gate = asyncio.Event()

        async def wait(call: str) -> None:
            await gate.wait()

        world.regions[AP].faults.pause = wait
        world.write("abcdefgh")
        await until(lambda: len(world.holds(EU)) == 8)
        async with world.process(eu_rule(), COPIES, limits=QUICK):
            await until(lambda: any(each[0] is Why.ENDING for each in standing(process)), within=60)
            (given_back,) = (each for each in standing(process) if each[0] is Why.ENDING)
            assert given_back in standing(process, "copies")
            gate.set()
            await until(lambda: standing(process) == standing(process, "copies") == set(), within=60)
            await until(lambda: {world.owner("s0"), world.owner("s1")} == {WorkerId("p1.1"), WorkerId("p2.1")})
            world.write("abcdefgh", 1)
            await until(lambda: world.same() and world.same(AP))


async def test_a_shard_that_is_listed_and_cannot_be_stored_is_told() -> None:
    world = World()
    async with world.process(limits=QUICK) as process:
        await until(lambda: world.owner() is not None)
        world.streams.add_shard(world.ref, S1, ShardId("p"))

        async def refuse(*about: object) -> str:
            if about[1] == "p":
                raise Unreachable("No answer.")
            return await real(*about)  # type: ignore[arg-type]

        real = world.streams.iterator
        world.streams.iterator = refuse  # type: ignore[assignment, method-assign]
        await until(lambda: standing(process) == {(Why.NOT_STORED, ("s1",))}, within=90)
        world.streams.iterator = real  # type: ignore[method-assign]
        await until(lambda: standing(process) == set(), within=60)


async def test_a_late_target_that_waits_for_a_shard_which_is_listed_and_cannot_be_read_is_told() -> None:
    world = World()
    async with world.process(limits=QUICK) as process:
        world.put("a", 1)
        await until(world.same)
        await asyncio.sleep(100)
        await process.drain()
    real = world.streams.iterator

    async def gone(*about: object) -> str:
        if about[2] == HORIZON:
            raise ShardGone("Gone.")
        return await real(*about)  # type: ignore[arg-type]

    world.streams.iterator = gone  # type: ignore[assignment, method-assign]
    world.put("b", 1)
    async with world.process(BOTH, limits=QUICK) as process:
        await until(lambda: standing(process) == {(Why.LATE_TARGET, ("s0",))}, within=90)
        world.streams.iterator = real  # type: ignore[method-assign]
        await until(lambda: world.same() and world.same(AP))
        await until(lambda: standing(process) == set(), within=60)


async def test_a_closed_shard_whose_end_never_comes_is_told_with_what_waits_for_it() -> None:
    world = World()
    async with world.process(limits=QUICK) as process:
        world.put("a", 1)
        await until(world.same)
        world.streams.add_shard(world.ref, S1, S0)  # it goes on without an end, although it has a child
        world.streams.misreport(world.ref, Shard(S0, closed=True))
        await until(lambda: standing(process) == {(Why.MOTIONLESS, ("s0",))}, within=90)
        assert world.owner("s1") is None


async def test_a_stream_that_lists_no_shard_is_told() -> None:
    world = World()
    world.streams.hide(world.ref, S0)
    async with world.process(limits=QUICK) as process:
        await until(lambda: standing(process) == {(Why.NO_SHARD, ())}, within=60)
        world.reveal_all()
        await until(lambda: standing(process) == set(), within=60)


async def test_a_rule_that_is_paused_stands_still_on_purpose() -> None:
    world = World()
    world.membership.pause(RuleName("orders"))
    world.roll("s0", "s1")
    async with world.process(limits=QUICK) as process:
        await asyncio.sleep(200)
        assert standing(process) == set()


async def test_what_stands_still_is_taken_back_when_the_session_ends() -> None:
    world = World()
    world.streams.hide(world.ref, S0)
    async with world.process(limits=QUICK) as process:
        await until(lambda: standing(process) != set(), within=60)
        process.suspend(60)
        await until(lambda: len(process.observer.of("session_began")) == 2)
        await asyncio.sleep(5)
        assert standing(process) == set(), "the next session has seen it for a moment only"


# -- calls that never return -------------------------------------------------------------------------------------------


def coordination(world: World) -> Faults:
    return world.coordination.faults


HANGING: dict[str, tuple[Callable[[World], Faults], str]] = {
    "state": (coordination, "shards of orders in us"),
    "save": (coordination, "checkpoint of shard s0 of orders in us"),
    "members": (lambda world: world.membership.faults, "members"),
    "streams": (lambda world: world.registry.faults, "stream of orders in us"),
}


@pytest.mark.parametrize("call", HANGING)
async def test_a_service_that_waits_for_an_answer_for_too_long_is_told_while_it_waits(call: str) -> None:
    world = World()
    faults, what = HANGING[call]
    gate = hold(faults(world), call)
    async with world.process(limits=QUICK) as process:
        world.put("a", 1)
        await until(lambda: what in process.observer.troubles, within=60)
        await asyncio.sleep(60)
        hangs = [event for event in process.observer.of("service_hangs") if event[0] == what]
        assert len(hangs) >= 3, "it is reported again while it lasts"
        assert hangs[-1][1] > hangs[0][1] >= 20
        gate.set()
        await until(lambda: process.observer.troubles == {})
        await until(world.same)


@pytest.mark.parametrize("call", ["start", "GetShardIterator"])
async def test_a_rule_that_is_about_to_begin_and_gets_no_answer_is_told(call: str) -> None:
    world = World()
    gates = [hold(port.faults, call) for port in (world.registry, world.streams)]
    async with world.process(limits=QUICK) as process:
        world.put("a", 1)
        await until(lambda: process.observer.stalls == {("s0", "orders/eu")}, within=60)
        assert "does not answer" in process.observer.of("stalled")[0][2]
        for gate in gates:
            gate.set()
        await until(world.same)
        await until(lambda: process.observer.stalls == set())


async def test_a_rule_whose_place_is_not_answered_is_told_although_another_rule_of_the_shard_is() -> None:
    world = World()
    async with world.process(eu_rule(), COPIES, limits=QUICK) as process:
        world.put("a", 1)
        await until(lambda: world.same() and world.same(AP))
        await asyncio.sleep(5)
        world.membership.pause(RuleName("copies"))
        await asyncio.sleep(10)
        for number in range(3):
            world.put("b", number)
            await asyncio.sleep(5)
        real, place = world.streams.iterator, world.row().checkpoints[COPIES.targets[0].target_id]

        async def refuse(*about: object) -> str:
            if about[2] == place:
                raise Unreachable("No answer.")
            return await real(*about)  # type: ignore[arg-type]

        world.streams.iterator = refuse  # type: ignore[assignment, method-assign]
        world.membership.resume(RuleName("copies"))
        await until(lambda: process.observer.stalls == {("s0", "copies/ap")}, within=120)
        world.streams.iterator = real  # type: ignore[method-assign]
        await until(lambda: world.same(AP))
        await until(lambda: process.observer.stalls == set())
