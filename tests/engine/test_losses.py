"""Losses that an operator would have to accept twice, or in other words: none passes unseen."""

from __future__ import annotations

import asyncio

from replicator.domain.errors import RecordsTrimmed, ShardGone, Unreachable
from replicator.domain.gaps import Gap
from replicator.domain.identifiers import SequenceNumber, ShardId
from replicator.domain.progress import END, HORIZON, after
from replicator.domain.shards.leases import Rewind
from tests.engine.shard_bench import S0, ShardBench, first_of
from tests.engine.test_gaps import DAY, OWED, SKIP, gaps, lost, started, trim
from tests.engine.world import AP, EU, World, id_of, key_of, rule, target, until


def accept(world: World) -> None:
    """Accept every loss as it is on record now."""
    for gap in world.registry.gaps:
        world.registry.acknowledge(gap.gap_id)


# -- losses that grow ----------------------------------------------------------------------------------------------


async def test_what_is_trimmed_while_a_target_waits_is_shown_before_it_can_be_accepted() -> None:
    world = World()
    await lost(world)
    async with ShardBench(world) as bench:
        await until(lambda: gaps(world) == [("s0", "5", "9")])
        world.write("klmnopqrst")
        trim(world, keep=2)
        await until(lambda: gaps(world) == [("s0", "5", "19")])
        assert len(bench.observer.of("gap_found")) == 2
        accept(world)
        await until(lambda: world.stored() == "20")
        assert set(world.holds()) == set("abcdest")


async def test_what_a_loss_grows_by_after_the_word_is_passed_with_it_and_stays_open_in_the_ledger() -> None:
    world = World()
    await lost(world)
    async with ShardBench(world) as bench:
        await until(lambda: bool(bench.observer.blocked_keys))
        accept(world)
        world.write("klmnopqrst")
        trim(world, keep=2)
        await until(lambda: world.stored() == "20")
        assert gaps(world) == [("s0", "5", "19")]
        assert set(world.holds()) == set("abcdest")
        (gap,) = world.registry.gaps
        assert not await world.registry.acknowledged(gap), "not all of it was seen"


async def test_a_word_is_not_outrun_by_records_that_age_away_one_after_the_other() -> None:
    world = World()
    await lost(world)
    letters = iter("klmnopqrstuvwxyz")
    async with ShardBench(world) as bench:

        async def age() -> None:
            for letter in letters:
                world.write(letter)
                trim(world, keep=1)
                await asyncio.sleep(7)

        aging = asyncio.ensure_future(age())
        await until(lambda: bool(bench.observer.blocked_keys))
        accept(world)
        await until(lambda: bool(bench.observer.of("gap_passed")))
        await aging
        await until(lambda: world.stored() == "26")


async def test_a_second_loss_behind_the_same_place_needs_its_own_acknowledgement() -> None:
    world = World()
    await lost(world)
    world.region.faults.outage = Unreachable
    async with ShardBench(world) as bench:
        await until(lambda: bool(bench.observer.blocked_keys))
        accept(world)
        await until(lambda: bool(bench.observer.of("gap_passed")))
        await bench.kill()
    assert gaps(world) == [("s0", "5", "9")]
    world.write("klmn")
    trim(world, keep=1)
    world.region.faults.outage = None
    async with ShardBench(world):
        await until(lambda: gaps(world) == [("s0", "5", "14")])
        await asyncio.sleep(100)
        assert "n" not in world.holds(), "it is not accepted that 9 to 13 are lost"
        accept(world)
        await until(lambda: "n" in world.holds())


async def test_what_is_trimmed_between_the_acknowledgement_and_the_next_reading_is_recorded() -> None:
    world = World()
    await lost(world)
    async with ShardBench(world) as bench:
        await until(lambda: bool(bench.observer.blocked_keys))
        world.write("klmn")

        told: list[tuple[str, str]] = []

        def trim_when_passed(gap: Gap, why: str) -> None:
            if not told:
                trim(world, keep=1)
            told.append((gap.after.text, why))

        bench.observer.gap_passed = trim_when_passed  # type: ignore[method-assign]
        accept(world)
        await until(lambda: gaps(world) == [("s0", "5", "14")])
        await until(lambda: "n" in world.holds())
        assert len(told) == 2, "both passes are reported"


async def test_a_target_that_lost_nothing_goes_on_while_another_waits_and_is_lost_nothing() -> None:
    world = World()
    world.regions[AP].poison(key_of("c"), "it is too large")
    both = rule("orders", target("orders", EU), target("orders", AP))
    world.write("abcdefgh")
    async with ShardBench(world, both) as bench:
        await until(lambda: (world.stored(), world.stored(target_id="orders/ap")) == ("8", "2"))
        await bench.drain()
    world.regions[AP].cure(key_of("c"))
    world.write("ijkl")
    trim(world, keep=6)
    async with ShardBench(world, both) as bench:
        await until(lambda: gaps(world) == [("s0", "2", "7")])
        await until(lambda: world.stored() == "12", within=5)
        trim(world, keep=2)
        await until(lambda: gaps(world) == [("s0", "2", "11")])
        accept(world)
        await until(lambda: world.stored(target_id="orders/ap") == "12")
    assert gaps(world) == [("s0", "2", "11")]


async def test_a_look_without_an_answer_shows_nothing_and_passes_nothing() -> None:
    world = World()
    await lost(world)
    async with ShardBench(world) as bench:
        await until(lambda: bool(bench.observer.blocked_keys))
        world.streams.faults.outage = Unreachable
        accept(world)
        await asyncio.sleep(100)
        assert gaps(world) == [("s0", "5", "9")]
        assert bench.observer.of("gap_passed") == []
        world.streams.faults.outage = None
        await until(lambda: world.stored() == "10")


# -- rewinds -------------------------------------------------------------------------------------------------------


async def rewound(world: World, text: str | None = None) -> None:
    """Let a target read a shard's records and be rewound to its horizon from there, or from `END`."""
    await started(world)
    first_of(world, "s0")
    world.write("abc")
    if text == END.text:
        world.streams.close(world.ref, S0)
    async with ShardBench(world, found_at=OWED) as bench:
        await until(lambda: world.stored() == (text or "3"))
        await bench.drain()
    rewind = Rewind(before=0.0, until=END if text else after(SequenceNumber("3")))
    world.coordination.rewind(world.ref, S0, {id_of("orders/eu"): HORIZON}, {id_of("orders/eu"): rewind})


async def test_a_rewind_excuses_no_loss_behind_where_the_target_had_been() -> None:
    world = World()
    await rewound(world)
    world.write("defghi")
    await asyncio.sleep(2 * DAY)
    trim(world, keep=2)
    async with ShardBench(world, found_at=OWED):
        await until(lambda: gaps(world) == [("s0", "3", "8")])
        await asyncio.sleep(100)
        assert not set(world.holds()) & set("hi")
        accept(world)
        await until(lambda: world.stored() == "9")
        assert set(world.holds()) == set("abchi")


async def test_a_lie_about_the_place_behind_a_rewind_is_no_gap() -> None:
    world = World()
    await rewound(world)
    real, lies = world.streams.iterator, [2]

    async def lie(*about: object) -> str:
        if lies[0] and about[2] == after(SequenceNumber("3")):
            lies[0] -= 1
            raise RecordsTrimmed("Trimmed.")
        return await real(*about)  # type: ignore[arg-type]

    world.streams.iterator = lie  # type: ignore[assignment, method-assign]
    world.write("d")
    async with ShardBench(world, found_at=OWED):
        await until(lambda: world.stored() == "4")
    assert lies == [0]
    assert gaps(world) == []


async def test_a_loss_before_the_end_of_a_rewind_is_excused_while_it_is_read() -> None:
    world = World()
    await rewound(world)
    world.region.faults.outage = Unreachable
    async with ShardBench(world, found_at=OWED) as bench:
        await until(lambda: bool(bench.observer.blocked_keys))
        trim(world, keep=1)
        for holder in list(bench.budget._holders):
            holder.shed(0.0)
        await asyncio.sleep(0.1)
        world.region.faults.outage = None
        await until(lambda: world.stored() == "3")
    assert gaps(world) == []


async def test_a_rewound_finished_shard_that_ages_away_is_no_loss() -> None:
    world = World()
    await rewound(world, END.text)
    world.streams.remove_shard(world.ref, S0)
    async with ShardBench(world, found_at=OWED) as bench:
        await until(bench.task.done)
        assert bench.observer.blocked_keys == {}
    assert world.stored() == END.text
    assert gaps(world) == []


# -- parents without a row -----------------------------------------------------------------------------------------


async def test_a_parent_whose_row_was_deleted_is_read_before_its_child() -> None:
    world = World("s0")
    async with world.process() as process:
        world.put("a", 1)
        await until(world.same)
        await asyncio.sleep(120)
        world.roll("s0", "p1")
        await asyncio.sleep(20)
        world.put("a", 2)
        await until(world.same)
        world.region.faults.outage = Unreachable
        world.put("a", 3)
        world.roll("p1", "c1")
        world.put("a", 4)
        await asyncio.sleep(30)
        await process.drain()
    del world.coordination._rows[next(place for place in world.coordination._rows if place[1] == "p1")]
    world.region.faults.outage = None
    async with world.process():
        await until(lambda: world.stored("p1") == END.text)
        assert world.stored("c1") is None, "it has waited"
        await until(world.same, within=100)
        await until(lambda: world.stored("c1") is not None, within=100)
    assert gaps(world) == []


async def test_a_parent_that_can_be_read_and_is_not_listed_is_no_gap_and_not_overtaken() -> None:
    world = World()
    await started(world)
    world.streams.add_shard(world.ref, ShardId("p"))
    world.write("abc")
    async with ShardBench(world, SKIP, found_at=OWED, parents=("p",)) as bench:
        await asyncio.sleep(300)
        assert world.holds() == {}
        assert any("waits for its parent p" in str(trouble) for trouble in bench.observer.troubles.values())
        assert gaps(world) == []
        world.streams.remove_shard(world.ref, ShardId("p"))
        await until(world.same)
    assert gaps(world) == [("p", "TRIM_HORIZON", "SHARD_END")]


async def test_a_lie_that_a_parent_is_gone_is_no_gap() -> None:
    world = World()
    await started(world)
    world.streams.add_shard(world.ref, ShardId("p"))
    world.write("abc")
    real, lies = world.streams.iterator, [2]

    async def lie(*about: object) -> str:
        if lies[0] and about[1] == "p":
            lies[0] -= 1
            raise ShardGone("Gone.")
        return await real(*about)  # type: ignore[arg-type]

    world.streams.iterator = lie  # type: ignore[assignment, method-assign]
    async with ShardBench(world, SKIP, found_at=OWED, parents=("p",)):
        await asyncio.sleep(100)
    assert lies == [0]
    assert gaps(world) == []
