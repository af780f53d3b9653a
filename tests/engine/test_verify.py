"""Verify and repair of mode `ordered`: a replica that was damaged in known places, in the engine's small world."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest

from replicator.domain.cache_keys import CacheVerb
from replicator.domain.conflicts import ConflictKind
from replicator.domain.filters import Filter
from replicator.domain.identifiers import WorkerId
from replicator.domain.image import Image, same_content, stamped
from replicator.domain.jobs import Job, JobKind, JobState, Part, all_segments, parts_of
from replicator.domain.modes.requests import GetItem
from replicator.domain.progress import Position
from replicator.domain.records import item_key
from replicator.domain.rules import OnRefusal, Sweep
from replicator.domain.transforms import Transform
from replicator.domain.values import replace
from replicator.domain.versions import ordered_version
from replicator.engine.copying.applied import Applied
from replicator.engine.limits import Limits
from replicator.laboratory.memory import MemoryCacheDebt, value_entry
from replicator.laboratory.memory.faults import Fault
from replicator.laboratory.memory.lookups import MemoryLookups
from tests.engine.job_world import MARGINS, JobWorldOf, job
from tests.engine.world import AP, EU, ORDERS, US, World, cache_rule, eu_rule, id_of, image, key_of, rule, target, until

TABLES = parts_of([(US, ORDERS), (EU, ORDERS)], 2)


@dataclass
class Damage:
    """What was done to a replica, behind replication's back."""

    world: World
    kinds: dict[str, str]

    def do(self, name: str, kind: str, item: Image | None) -> None:
        self.world.region.write_foreign(key_of(name), item)
        self.kinds[name] = kind


def damaged(world: World, each: int = 2) -> Damage:
    """Items gone, changed under their version, replaced by foreign ones, and extra ones with and without a version."""
    damage = Damage(world, {})
    names = iter(sorted(world.truth()))
    for _ in range(each):
        damage.do(next(names), "missing", None)
        name = next(names)
        stamp = world.region.item(key_of(name)).stamp  # type: ignore[union-attr]
        assert stamp is not None
        damage.do(name, "differs", Image(stamped(image(name, "changed"), stamp)))
        name = next(names)
        damage.do(name, "unstamped", image(name, "foreign"))
    for number in range(each):
        version = ordered_version(0, world.ref.generation, 1 + number)
        damage.do(f"x{number}", "extra", Image(stamped(image(f"x{number}", "extra"), version)))
        damage.do(f"y{number}", "extra", image(f"y{number}", "extra"))
    return damage


@pytest.fixture
async def world() -> World:
    made = World()
    made.write([f"k{number:02d}" for number in range(40)], 1)
    return made


def jobs_of(world: World) -> JobWorldOf:
    return JobWorldOf(world)


def asked(kind: JobKind, **options: Any) -> Job:
    return job(kind, parts=TABLES, job_id=f"{kind}", created_at=0.0, options=options)


async def found(jobs: JobWorldOf, job_id: str) -> dict[str, str]:
    """The differences that a job noted: kinds by key."""
    return {note["key"]["pk"]["S"]: note["kind"] for _, note in await jobs.rows.notes(job_id)}


async def ended(jobs: JobWorldOf, asked: Job) -> Job:
    assert await jobs.rows.create(asked) is None
    over = await jobs.ended(asked.job_id)
    assert over.state is JobState.DONE
    return over


async def test_verify_names_exactly_what_was_damaged_and_writes_nothing(world: World) -> None:
    jobs = jobs_of(world)
    async with jobs.process():
        await until(world.same)
        damage = damaged(world)
        before = dict(world.region.slots)
        over = await ended(jobs, asked(JobKind.VERIFY))
        assert await found(jobs, over.job_id) == damage.kinds
        assert over.counts["differences"] == len(damage.kinds) == 10
        assert over.counts["compared"] == 40 + 4
        assert {kind: over.counts[kind] for kind in ("missing", "differs", "unstamped", "extra")} == {
            "missing": 2,
            "differs": 2,
            "unstamped": 2,
            "extra": 4,
        }
        assert world.region.slots == before
        assert not over.counts.get("alone")


async def test_an_identical_replica_has_no_difference(world: World) -> None:
    jobs = jobs_of(world)
    async with jobs.process():
        await until(world.same)
        over = await ended(jobs, asked(JobKind.VERIFY))
        assert (over.counts["compared"], over.counts.get("differences", 0)) == (40, 0)


async def test_repair_under_load_mends_what_differs_and_a_second_verify_is_clean(world: World) -> None:
    jobs = jobs_of(world)
    async with jobs.process():
        await until(world.same)
        damage = damaged(world)

        async def load() -> None:
            for number in range(200):
                world.put(f"k{number % 40:02d}" if number % 3 else f"n{number}", number)
                if number % 7 == 0 and key_of(name := f"k{(number + 11) % 40:02d}") in world.source.items:
                    world.delete(name)
                await asyncio.sleep(0.2)

        writing = asyncio.create_task(load())
        over = await ended(jobs, asked(JobKind.REPAIR, extra="delete"))
        await writing
        await until(world.same)
        assert over.counts.get("differences", 0) == 0
        again = await ended(jobs, asked(JobKind.VERIFY))
        assert again.counts.get("differences", 0) == 0
        assert await found(jobs, again.job_id) == {}
        assert over.counts["mended"] >= len([kind for kind in damage.kinds.values() if kind == "extra"])


async def test_what_a_repair_replaced_is_in_the_conflict_log(world: World) -> None:
    jobs = jobs_of(world)
    async with jobs.process():
        await until(world.same)
        damage = damaged(world, 1)
        await ended(jobs, asked(JobKind.REPAIR, extra="delete"))
        await until(world.same)
        logged = {entry.conflict.key: entry for entry in world.conflicts.entries(eu_rule().name)}
        replaced = {name for name, kind in damage.kinds.items() if kind != "missing"}
        assert {key.parts[0][2] for key in logged} == replaced
        assert {entry.conflict.kind for entry in logged.values()} == {ConflictKind.REPAIR}
        entry = logged[key_of("k01")]
        assert entry.conflict.loser is not None
        assert entry.conflict.loser.attributes["value"] == {"S": "changed"}
        assert entry.witness.shard == "job:repair"


async def test_extra_items_without_a_version_stay_unless_they_are_to_be_deleted(world: World) -> None:
    jobs = jobs_of(world)
    async with jobs.process():
        await until(world.same)
        damaged(world, 1)
        over = await ended(jobs, asked(JobKind.REPAIR))
        assert await found(jobs, over.job_id) == {"y0": "extra"}
        assert (over.counts["left"], over.counts["differences"]) == (1, 1)
        assert world.region.item(key_of("y0")) is not None
        assert world.region.item(key_of("x0")) is None


async def test_a_dry_run_writes_nothing(world: World) -> None:
    jobs = jobs_of(world)
    async with jobs.process():
        await until(world.same)
        damage = damaged(world, 1)
        before = dict(world.region.slots)
        over = await ended(jobs, asked(JobKind.REPAIR, dry_run=True))
        assert await found(jobs, over.job_id) == damage.kinds
        assert world.region.slots == before


async def test_only_the_keys_of_a_prefix_are_looked_at(world: World) -> None:
    jobs = jobs_of(world)
    async with jobs.process():
        await until(world.same)
        damage = damaged(world)
        over = await ended(jobs, asked(JobKind.VERIFY, prefix="x"))
        assert await found(jobs, over.job_id) == {"x0": "extra", "x1": "extra"}
        assert over.counts["compared"] == 2
        assert len(damage.kinds) == 10


async def test_a_prefix_is_of_the_partition_key_whatever_its_name(world: World) -> None:
    jobs = jobs_of(world)
    keys = {name: item_key(f'{{"day":{{"S":"{name}"}},"user":{{"S":"u{name}"}}}}'.encode()) for name in ("a", "u")}
    async with jobs.process():
        await until(world.same)
        for key in keys.values():
            world.source.items[key] = Image(key.wire)
        over = await ended(jobs, asked(JobKind.VERIFY, prefix="uu", prefix_of="user"))
        assert [note["key"]["day"]["S"] for _, note in await jobs.rows.notes(over.job_id)] == ["u"]
        assert over.counts["compared"] == 1


async def test_only_named_keys_are_looked_at_in_both_directions(world: World) -> None:
    jobs = jobs_of(world)
    async with jobs.process():
        await until(world.same)
        damaged(world)
        keys = [{"pk": {"S": name}} for name in ("k00", "k39", "y1", "never")]
        over = await ended(jobs, replace(asked(JobKind.VERIFY, keys=keys), parts=(Part("keys", 1),)))
        assert await found(jobs, over.job_id) == {"k00": "missing", "y1": "extra"}
        assert over.counts["compared"] == 4


async def test_a_filter_decides_what_is_missing_and_what_is_extra(world: World) -> None:
    jobs = jobs_of(world)
    async with jobs.process():
        await until(world.same)
    narrow = eu_rule(filter=Filter(key_prefix=(("pk", "k0"),)))
    async with jobs.process(narrow):
        over = await ended(jobs, asked(JobKind.VERIFY))
        assert set(await found(jobs, over.job_id)) == {f"k{number}" for number in range(10, 40)}
        await ended(jobs, replace(asked(JobKind.REPAIR), created_at=1.0))
        assert set(world.holds()) == {f"k0{number}" for number in range(10)}


async def test_a_parked_key_is_told_as_parked(world: World) -> None:
    jobs = jobs_of(world)
    world.region.poison(key_of("k05"), "it is too large")
    async with jobs.process(eu_rule(refused=OnRefusal.PARK)):
        await until(lambda: len(world.holds()) == 39)
        over = await ended(jobs, asked(JobKind.VERIFY))
        assert (over.counts["parked"], over.counts.get("differences", 0)) == (1, 0)
        refused = await ended(jobs, asked(JobKind.REPAIR))
        assert (refused.counts["refused"], await found(jobs, "repair")) == (1, {"k05": "missing"})
        world.region.cure(key_of("k05"))
        healed = await ended(jobs, replace(asked(JobKind.REPAIR), job_id="again"))
        assert healed.counts["mended"] == 1
        assert world.same()
        assert not world.owed.rows, "what was owed is settled"


async def test_a_repair_waits_until_a_silent_worker_can_write_no_more(world: World) -> None:
    """What is seen while a forgotten worker may still write counts for nothing."""
    jobs = jobs_of(world)
    async with jobs.process() as process:
        await until(world.same)
        world.region.write_foreign(key_of("k00"), None)
        row = world.row()
        seized = world.now()
        world.coordination.put(world.ref, replace(row, seized_at=seized))
        await jobs.rows.create(asked(JobKind.REPAIR))
        await asyncio.sleep(MARGINS.zombie_seconds - 2)
        assert world.region.item(key_of("k00")) is None
        over = await jobs.ended("repair")
        assert over.counts["mended"] == 1
        assert process.clock.now() >= seized + MARGINS.zombie_seconds


async def test_a_key_at_which_nothing_differs_counts_only_when_a_silent_worker_can_write_no_more(world: World) -> None:
    jobs = jobs_of(world)
    async with jobs.process():
        await until(world.same)
        world.coordination.put(world.ref, replace(world.row(), seized_at=world.now()))
        await jobs.rows.create(asked(JobKind.REPAIR))
        await asyncio.sleep(MARGINS.zombie_seconds - 2)
        older = Image(stamped(image("k00", "older"), ordered_version(0, world.ref.generation, 1)))
        world.region.write_foreign(key_of("k00"), older)  # what the silent worker had sent arrives
        over = await jobs.ended("repair")
        assert over.counts["mended"] == 1
        assert world.same()


async def test_nor_before_the_silent_owner_of_its_segment_can_write_no_more(world: World) -> None:
    jobs = jobs_of(world)
    repair = asked(JobKind.REPAIR)
    assert await jobs.rows.create(repair) is None
    for segment in all_segments(repair, await jobs.rows.segments("repair")):
        await jobs.rows.claim(segment, WorkerId("silent"))
    async with jobs.process() as process:
        await until(world.same)
        while any(each.owner == "silent" for each in await jobs.rows.segments("repair")):  # noqa: ASYNC110 - as `until` does
            await asyncio.sleep(0.1)
        taken = process.clock.now()
        await asyncio.sleep(MARGINS.zombie_seconds - 2)
        world.region.write_foreign(key_of("k00"), image("k00", "older"))
        over = await jobs.ended("repair")
        assert over.counts["mended"] == 1
        assert world.same()
        assert process.clock.now() >= taken + MARGINS.zombie_seconds - 2


@pytest.mark.parametrize(("kind", "looks"), [(JobKind.VERIFY, 2), (JobKind.REPAIR, 1)])
async def test_a_report_takes_one_look_in_order_more_than_a_repair(world: World, kind: JobKind, looks: int) -> None:
    jobs = jobs_of(world)
    async with jobs.process():
        await until(world.same)
        world.region.write_foreign(key_of("k00"), None)
        await ended(jobs, asked(kind))
        assert world.region.sent.count(GetItem(key_of("k00"))) == looks


async def test_a_page_has_passed_only_when_its_last_look_up_has(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs, waited = jobs_of(world), list[float]()
    items, passed = MemoryLookups.items, Applied.passed

    async def slow(self: MemoryLookups, keys: Any) -> Any:
        await asyncio.sleep(3)
        return await items(self, keys)

    async def told(self: Applied, followed: Any, at: float, stop: asyncio.Event) -> bool:
        waited.append(at)
        return await passed(self, followed, at, stop)

    monkeypatch.setattr(MemoryLookups, "items", slow)
    monkeypatch.setattr(Applied, "passed", told)
    async with jobs.process():
        await until(world.same)
        world.region.write_foreign(key_of("k00"), None)
        began = world.now()
        await ended(jobs, asked(JobKind.VERIFY))
        assert min(waited) >= began + 3


async def test_where_no_worker_replicates_what_both_looks_agree_on_is_told_and_that_none_did(world: World) -> None:
    jobs = jobs_of(world)
    async with jobs.process():
        await until(lambda: world.stored() == "40")
    row = world.row()
    world.coordination.put(world.ref, replace(row, owner=None, checkpoints={id_of("orders/eu"): Position("40")}))
    world.region.write_foreign(key_of("k00"), None)
    async with jobs.process(only_jobs=True):
        over = await ended(jobs, asked(JobKind.VERIFY))
        assert await found(jobs, over.job_id) == {"k00": "missing"}
        assert over.counts["alone"] > 0


CACHED = rule("orders", target("orders", EU, cache_rule("eu_main", EU, CacheVerb.REFRESH, "o:{pk}")))


async def test_entries_that_are_older_than_their_item_are_told_and_a_repair_drops_them(world: World) -> None:
    jobs = jobs_of(world)
    cache = world.caches["eu_main"]
    async with jobs.process(CACHED):
        await until(lambda: world.stored() == "40")
        stamp = world.region.item(key_of("k01")).stamp  # type: ignore[union-attr]
        assert stamp is not None
        cache.entries["o:k00"] = value_entry(ordered_version(0, 1, 1), b"{}")
        cache.entries["o:k01"] = value_entry(stamp, b"{}")
        cache.entries["o:k02"] = b"of another program"
        over = await ended(jobs, asked(JobKind.VERIFY))
        assert {name: over.counts.get(name, 0) for name in ("entries", "opaque", "stale", "invalidated")} == {
            "entries": 3,
            "opaque": 1,
            "stale": 1,
            "invalidated": 0,
        }
        mended = await ended(jobs, asked(JobKind.REPAIR))
        assert (mended.counts["stale"], mended.counts["invalidated"]) == (1, 1)
        assert set(cache.entries) == {"o:k01", "o:k02"}


async def test_an_entry_that_an_action_renews_meanwhile_is_not_stale(world: World) -> None:
    jobs = jobs_of(world)
    cache = world.caches["eu_main"]
    async with jobs.process(CACHED):
        await until(lambda: world.stored() == "40")
        cache.entries["o:k00"] = value_entry(ordered_version(0, 1, 1), b"{}")
        await jobs.rows.create(asked(JobKind.VERIFY))
        await asyncio.sleep(5)
        cache.entries.pop("o:k00")
        over = await jobs.ended("verify")
        assert over.counts.get("stale", 0) == 0


async def test_a_rule_is_swept_again_and_again_and_the_last_pass_is_told(world: World) -> None:
    jobs = jobs_of(world)
    async with jobs.process(eu_rule(sweep=Sweep(100.0, 50))) as process:
        await until(world.same)
        await until(lambda: bool(process.observer.swept))
        (one,) = process.observer.swept
        await asyncio.sleep(30)
        assert process.observer.swept == [one]
        await asyncio.sleep(100)
        (two,) = process.observer.swept
        assert two != one


@pytest.mark.parametrize(
    "how", ["answers are lost", "a worker is killed", "a worker is killed behind all that settles"]
)
async def test_a_repair_that_is_cut_off_leaves_no_entry_of_what_it_replaced(world: World, how: str) -> None:
    is_killed, is_late = "killed" in how, "settles" in how
    world.debts = {"eu_main": MemoryCacheDebt()}
    jobs, cache, faults = jobs_of(world), world.caches["eu_main"], world.region.faults
    async with jobs.process(CACHED) as first:
        await until(lambda: world.stored() == "40")
        names = damaged(world).kinds
        stale = value_entry(ordered_version(0, world.ref.generation, 99), b"{}")
        cache.entries |= {f"o:{name}": stale for name in names}
        killed, puts = asyncio.Event(), 0

        def is_damaged(name: str) -> bool:
            there, wanted = world.region.item(key_of(name)), world.source.items.get(key_of(name))
            return there is not None and (wanted is None or not same_content(there, wanted))

        async def cut_off(call: str) -> None:
            nonlocal puts
            puts += call == "Put"
            if call == "Put" and is_late and not killed.is_set():
                await asyncio.sleep(60)  # whatever may be settled is settled, and readers come again
                cache.entries |= {f"o:{name}": stale for name in names if is_damaged(name)}
            if call == "Put" and not is_killed and puts <= 2:
                faults.script(Fault.AFTER)
            elif call == "Put" and is_killed and not killed.is_set():
                assert first.task is not None
                first.task.cancel()
                killed.set()

        faults.pause = cut_off
        await jobs.rows.create(asked(JobKind.REPAIR, extra="delete"))
        if is_killed:
            await killed.wait()
            await first.kill()
        async with jobs.process(CACHED):
            await jobs.ended("repair")
            assert world.same()
            await until(lambda: not world.debts["eu_main"].rows, within=1000)
            assert not cache.entries


async def test_a_repair_goes_on_by_the_rule_as_it_is_now(world: World) -> None:
    """It does not bring back what items were to look like before the configuration was read again."""
    jobs = JobWorldOf(world, page_items=2)
    was, now = (Transform(constant=(("shape", f'{{"S":"{shape}"}}'.encode()),)) for shape in ("was", "now"))
    before, after = (rule("orders", replace(target("orders", EU), transform=each)) for each in (was, now))

    def bring(number: int, shape: Transform | None = None) -> None:
        version = ordered_version(0, world.ref.generation, number)
        for key, item in world.source.items.items():
            there = item if shape is None else shape.apply(key, item)
            world.region.write_foreign(key, Image(stamped(there, version)))

    async with jobs.process(before, limits=Limits(job_segments=1, job_pages=1)):
        await until(lambda: world.stored() == "40")
        bring(41)  # damaged, so that every page waits for the stream
        await jobs.rows.create(asked(JobKind.REPAIR))
        await until(lambda: len(jobs.rows.saves) >= 2)
        jobs.rewritten[before.name] = after
        bring(50, now)  # as the pipelines of the rule do from now on
        await jobs.ended("repair")
        assert {item.attributes["shape"]["S"] for _, item in world.region.items()} == {"now"}


BOTH = rule("orders", target("orders", EU), target("orders", AP), refused=OnRefusal.PARK)


def of_both(kind: JobKind) -> Job:
    tables = parts_of([(US, ORDERS), (EU, ORDERS), (AP, ORDERS)], 1)
    return replace(asked(kind), parts=tables, targets=(id_of("orders/eu"), id_of("orders/ap")))


async def test_what_one_replica_is_owed_explains_and_settles_nothing_of_another_one(world: World) -> None:
    jobs = jobs_of(world)
    for region in (EU, AP):
        world.regions[region].poison(key_of("k05"), "it is too large")
    async with jobs.process(BOTH):
        await until(lambda: len(world.owed.rows) == 2)
        world.regions[EU].cure(key_of("k05"))
        await ended(jobs, of_both(JobKind.REPAIR))
        assert [to.target_id for to, _ in world.owed.rows] == [id_of("orders/ap")]
        world.regions[EU].write_foreign(key_of("k05"), None)
        over = await ended(jobs, of_both(JobKind.VERIFY))
        assert (over.counts["parked"], over.counts["differences"]) == (1, 1)
        assert await found(jobs, over.job_id) == {"k05": "missing"}


async def test_a_change_that_is_refused_while_an_older_one_is_mended_stays_owed(world: World) -> None:
    jobs, key, faults = jobs_of(world), key_of("k05"), world.region.faults
    world.region.poison(key, "it is too large")
    async with jobs.process(eu_rule(refused=OnRefusal.PARK)):
        await until(lambda: len(world.owed.rows) == 1)
        world.region.cure(key)

        async def meanwhile(call: str) -> None:
            if call == "GuardedPut" and faults.pause is not None:
                faults.pause = None
                world.region.poison(key, "it is too large")
                world.put("k05", 2)
                await until(lambda: world.stored() == "41")
                world.region.cure(key)

        faults.pause = meanwhile
        await ended(jobs, asked(JobKind.REPAIR))
    assert world.holds()["k05"] == "1"
    (row,) = world.owed.rows.values()
    assert row.sequence == "41"


async def test_a_take_over_is_noted_by_the_servers_time_whatever_the_workers_clock_says(world: World) -> None:
    """A repair waits behind it, and would not wait long enough for a machine that is late."""
    async with world.process() as first:
        await until(world.same)
        await first.kill()
        second = world.process()
        second.clock.ahead = -3600.0
        async with second:
            await until(lambda: world.owner() is not None and str(world.owner()).startswith(second.name))
            seized = world.row().seized_at
            assert abs(seized - world.now()) < 10.0
