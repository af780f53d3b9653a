"""A cache that is away holds nothing back: what it misses is owed to it, and settled when it is back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from replicator.domain.cache_debt import DebtPolicy, OnFull, OwedEntry
from replicator.domain.cache_keys import CacheVerb
from replicator.domain.cache_restores import Again, CacheServer
from replicator.domain.errors import AccessRefused, Unreachable
from replicator.domain.values import replace
from replicator.domain.versions import UNSTAMPED
from replicator.engine.applying.cache_debt import CacheDebt, Recent, Share
from replicator.engine.applying.cache_settling import Settler
from replicator.laboratory.memory import MemoryCache, MemoryCacheDebt, value_entry
from tests.engine.world import EU, LoopClock, Recorder, World, cache_rule, hold, rule, target, until

RULES = (rule("orders", target("orders", EU, cache_rule("eu_main", EU))),)
REFRESHED = (rule("orders", target("orders", EU, cache_rule("eu_main", EU, CacheVerb.REFRESH))),)
STALE = value_entry(UNSTAMPED, b"{}")


def shop(policy: DebtPolicy | None = None) -> World:
    world = World()
    world.debts = {"eu_main": MemoryCacheDebt()}
    world.debt_policy = policy or DebtPolicy(patterns=("order:*",))
    world.caches["eu_main"].entries |= {f"order:k{number}": STALE for number in range(10)} | {"other": b"ours"}
    return world


def stale(world: World) -> set[str]:
    return {key for key in world.caches["eu_main"].entries if key.startswith("order:")}


def names(*numbers: int) -> list[str]:
    return [f"k{number}" for number in numbers]


@pytest.mark.parametrize("rules", [RULES, REFRESHED], ids=["invalidate", "refresh"])
async def test_a_replica_goes_on_while_its_cache_is_away_and_every_entry_is_dropped_when_it_is_back(rules: Any) -> None:
    world = shop()
    cache = world.caches["eu_main"]
    async with world.process(*rules) as process:
        cache.faults.outage = Unreachable
        world.write(names(*range(10)))
        await until(lambda: world.same() and world.stored() == world.records()[-1].sequence)
        assert len(stale(world)) == 10
        state = process.observer.caches["eu_main"]
        assert state.error is not None
        assert (state.keys, state.owed) == (10, 10)
        assert process.observer.of("blocked") == []
        cache.faults.outage = None
        await until(lambda: not world.debts["eu_main"].rows, within=10)
        assert stale(world) == set()
        assert cache.entries["other"] == b"ours"
        state = process.observer.caches["eu_main"]
        assert (state.error, state.keys, state.settled) == (None, 0, 10)


async def test_a_cache_that_does_not_answer_at_all_delays_a_replica_for_a_moment_only() -> None:
    world = shop()
    gate = hold(world.caches["eu_main"].faults, "cache")
    async with world.process(*RULES):
        world.write(names(1))
        await until(world.same, within=5)
        world.write(names(2, 3))
        await until(lambda: world.stored() == world.records()[-1].sequence, within=5)
        gate.set()
        world.caches["eu_main"].faults.pause = None
        await until(lambda: not world.debts["eu_main"].rows, within=10)
        assert stale(world).isdisjoint({"order:k1", "order:k2", "order:k3"})


async def test_an_entry_that_is_refused_by_itself_is_owed_and_keeps_no_other_one_back() -> None:
    world = shop()
    cache = world.caches["eu_main"]
    cache.refusals["order:k1"] = AccessRefused("The key is denied.")
    async with world.process(*RULES) as process:
        world.write(names(1, 2))
        await until(lambda: world.stored() == world.records()[-1].sequence)
        assert "order:k2" not in stale(world)
        await until(lambda: process.observer.caches["eu_main"].keys == 1)
        assert process.observer.caches["eu_main"].error is None
        cache.refusals.clear()
        await until(lambda: "order:k1" not in stale(world), within=15)
        await until(lambda: not world.debts["eu_main"].rows)


async def test_the_position_waits_while_what_a_cache_is_owed_cannot_be_noted() -> None:
    world = shop()
    world.caches["eu_main"].faults.outage = Unreachable
    world.debts["eu_main"].faults.outage = Unreachable
    async with world.process(*RULES) as process:
        world.write(names(1))
        await until(lambda: process.observer.of("blocked") != [])
        assert world.same()
        assert world.stored() != world.records()[-1].sequence
        world.debts["eu_main"].faults.outage = None
        await until(lambda: world.stored() == world.records()[-1].sequence)
        world.caches["eu_main"].faults.outage = None
        await until(lambda: not world.debts["eu_main"].rows)
        assert "order:k1" not in stale(world)


async def test_what_a_dead_worker_left_is_settled_by_another_one() -> None:
    world = shop()
    cache = world.caches["eu_main"]
    cache.faults.outage = Unreachable
    async with world.process(*RULES) as first:
        world.write(names(1, 2))
        await until(lambda: world.stored() == world.records()[-1].sequence)
        await first.kill()
    async with world.process(*RULES):
        await asyncio.sleep(30)
        assert {"order:k1", "order:k2"} <= stale(world)
        cache.faults.outage = None
        await until(lambda: not world.debts["eu_main"].rows, within=20)
        assert stale(world).isdisjoint({"order:k1", "order:k2"})


async def test_what_became_owed_again_while_it_was_dropped_stays_owed() -> None:
    world = shop()
    rows, cache = world.debts["eu_main"], world.caches["eu_main"]
    cache.faults.outage = Unreachable
    async with world.process(*RULES):
        world.write(names(1))
        await until(lambda: len(rows.rows) == 1)
        (before,) = rows.rows.values()
        gate = hold(rows.faults, "settle_debt")
        cache.faults.outage = None
        await until(lambda: "order:k1" not in stale(world))  # it is dropped, and its row is about to go
        cache.faults.outage = Unreachable
        cache.entries["order:k1"] = STALE
        world.write(names(1), "again")
        await until(lambda: [row.token for row in rows.rows.values()] != [before.token])
        gate.set()
        await asyncio.sleep(1)
        assert len(rows.rows) == 1
        cache.faults.outage = None
        await until(lambda: not rows.rows)
        assert "order:k1" not in stale(world)


FLUSHED = DebtPolicy(3, OnFull.FLUSH, ("order:*",))


async def test_more_than_is_kept_makes_all_entries_of_the_rules_go_when_the_cache_is_back() -> None:
    world = shop(FLUSHED)
    cache, rows = world.caches["eu_main"], world.debts["eu_main"]
    cache.faults.outage = Unreachable
    async with world.process(*RULES) as process:
        world.write(names(*range(8)))
        await until(lambda: world.stored() == world.records()[-1].sequence)
        assert len(rows.rows) <= 3
        assert process.observer.caches["eu_main"].owes_flush
        cache.faults.outage = None
        await until(lambda: not rows.rows and rows.flush_row is None, within=10)
        assert set(cache.entries) == {"other"}
        assert process.observer.caches["eu_main"].flushes == 1


async def test_a_flush_that_a_dead_worker_owed_is_made_by_another_one() -> None:
    world = shop(FLUSHED)
    cache, rows = world.caches["eu_main"], world.debts["eu_main"]
    cache.faults.outage = Unreachable
    async with world.process(*RULES) as first:
        world.write(names(*range(8)))
        await until(lambda: world.stored() == world.records()[-1].sequence)
        await first.kill()
    cache.faults.outage = None
    async with world.process(*RULES):
        await until(lambda: not rows.rows and rows.flush_row is None, within=30)
        assert set(cache.entries) == {"other"}


async def test_policy_wait_holds_the_replica_when_no_more_is_kept() -> None:
    world = shop(DebtPolicy(3, OnFull.WAIT))
    cache = world.caches["eu_main"]
    cache.faults.outage = Unreachable
    async with world.process(*RULES) as process:
        world.write(names(*range(8)))
        await until(lambda: any("owed 3 entries, the most" in event[-1] for event in process.observer.of("blocked")))
        assert world.stored() != world.records()[-1].sequence
        cache.faults.outage = None
        await until(lambda: world.stored() == world.records()[-1].sequence)
        await until(lambda: not world.debts["eu_main"].rows)
        assert len(stale(world)) == 2


async def test_policy_ignore_counts_what_stays_stale() -> None:
    world = shop(DebtPolicy(3, OnFull.IGNORE))
    cache = world.caches["eu_main"]
    cache.faults.outage = Unreachable
    async with world.process(*RULES) as process:
        world.write(names(*range(8)))
        await until(lambda: world.stored() == world.records()[-1].sequence)
        assert process.observer.caches["eu_main"].ignored == 5
        cache.faults.outage = None
        await until(lambda: not world.debts["eu_main"].rows)
        assert len(stale(world)) in {6, 7}  # a probe drops the entry that was tried last


@pytest.mark.parametrize("seed", range(6))
async def test_whatever_fails_nothing_stays_stale(seed: int) -> None:
    """Seeded failures of cache and rows, with and without effect, and two workers that die."""
    world = shop()
    cache, rows = world.caches["eu_main"], world.debts["eu_main"]
    cache.faults = type(cache.faults)(seed, before=0.2, after=0.2, throttle=0.1)
    rows.faults = type(rows.faults)(seed + 1, before=0.2, after=0.1)
    for turn in range(3):
        async with world.process(*RULES) as process:
            world.write(names(*range(turn, turn + 6)), turn)
            await asyncio.sleep(0.7 * (turn + seed % 3))
            await process.kill()
    cache.faults = type(cache.faults)()
    rows.faults = type(rows.faults)()
    async with world.process(*RULES):
        await until(lambda: world.stored() == world.records()[-1].sequence, within=120)
        await until(lambda: not rows.rows, within=60)
        assert stale(world) == {"order:k8", "order:k9"}, seed


A = CacheServer("a", 1000.0, 0, logs=False)


async def gone_back(before: CacheServer, after: CacheServer, policy: DebtPolicy, *, kept: bool = True) -> World:
    """k1 is acted on, and then another server answers that holds the old entry again; k2 was acted on long before."""
    world = shop(policy)
    cache = world.caches["eu_main"]
    cache.says = before
    async with world.process(*RULES) as process:
        await asyncio.sleep(700 if kept else 1)
        world.write(names(1))
        await until(lambda: "order:k1" not in stale(world))
        await asyncio.sleep(30)
        cache.entries["order:k1"] = STALE
        cache.says = after
        await until(lambda: process.observer.caches["eu_main"].restores == 1, within=15)
        await until(lambda: not world.debts["eu_main"].rows and world.debts["eu_main"].flush_row is None)
        await asyncio.sleep(30)
        assert process.observer.caches["eu_main"].restores == 1
    return world


async def test_what_a_server_that_took_over_may_lack_is_dropped_again() -> None:
    world = await gone_back(A, replace(A, run_id="b", uptime_seconds=5000), DebtPolicy(patterns=("order:*",)))
    assert len(stale(world)) == 9
    assert "order:k1" not in stale(world)


async def test_everything_goes_when_a_server_came_back_with_what_it_had_saved_or_too_little_is_remembered() -> None:
    policy = DebtPolicy(patterns=("order:*",))
    world = await gone_back(A, replace(A, run_id="b", uptime_seconds=1), policy)
    assert set(world.caches["eu_main"].entries) == {"other"}
    world = await gone_back(A, replace(A, run_id="b", uptime_seconds=5000), policy, kept=False)
    assert set(world.caches["eu_main"].entries) == {"other"}


async def test_what_a_worker_did_that_is_gone_since_is_dropped_again_too() -> None:
    """It acted on a server that had not copied that to the one that took over."""
    world = shop(DebtPolicy(patterns=("order:*",), restore_window=60.0))
    cache = world.caches["eu_main"]
    cache.says = A
    async with world.process(*RULES) as first:
        await until(lambda: world.owner() is not None)
        async with world.process(*RULES) as second:
            await asyncio.sleep(70)
            world.write(names(1))
            await until(lambda: "order:k1" not in stale(world))
            await asyncio.sleep(15)
            await first.drain()
            await asyncio.sleep(30)
            cache.entries["order:k1"] = STALE
            cache.says = replace(A, run_id="b", uptime_seconds=5000)
            await until(lambda: second.observer.caches["eu_main"].restores > 0, within=15)
            await until(lambda: "order:k1" not in stale(world))


async def test_a_machine_whose_clock_is_set_back_takes_no_restart_for_a_server_that_took_over() -> None:
    cache, clock = MemoryCache(), LoopClock()
    cache.entries["order:k1"], cache.says = STALE, A
    debt = CacheDebt(
        "eu_main", EU, cache, MemoryCacheDebt(), DebtPolicy(restore_window=60.0), clock=clock, observer=Recorder()
    )
    settler = Settler(debt)
    for _ in range(7):
        await settler.look(Share(seated=True, workers=1))
        await asyncio.sleep(10)
    clock.ahead = -3600.0
    cache.says = replace(A, run_id="b", uptime_seconds=5)
    await settler.look(Share(seated=True, workers=1))
    assert (debt.counts.flushes, cache.entries) == (1, {})


@pytest.mark.parametrize(("full", "others"), [(OnFull.WAIT, False), (OnFull.WAIT, True), (OnFull.IGNORE, False)])
async def test_more_than_may_be_owed_at_once_is_dropped_again_in_parts(full: OnFull, others: bool) -> None:
    """`others`: a worker that died owes as much as is kept."""
    world = shop(DebtPolicy(max_keys=6, on_full=full, may_flush=False, restore_window=60.0))
    cache, rows = world.caches["eu_main"], world.debts["eu_main"]
    cache.says = A
    async with world.process(*RULES), world.process(*RULES):
        await asyncio.sleep(70)
        world.write(names(*range(6)))
        await until(lambda: len(stale(world)) == 4)
        await asyncio.sleep(15)
        if others:
            cache.faults.outage = Unreachable
            await rows.put([OwedEntry(f"order:k{number}", "theirs", 0.0) for number in range(6)])
            await asyncio.sleep(30)
        cache.entries |= {f"order:k{number}": STALE for number in range(6)}
        cache.says = replace(A, run_id="b", uptime_seconds=5000)
        cache.faults.outage = None
        await until(lambda: stale(world).isdisjoint({f"order:k{number}" for number in range(6)}))
        await until(lambda: not rows.rows)


@pytest.mark.parametrize("late", [True, False])
async def test_a_worker_that_is_missed_behind_the_return_of_a_server_may_have_died_with_the_former(late: bool) -> None:
    cache, clock = MemoryCache(), LoopClock()
    cache.entries["order:k1"], cache.says = STALE, A
    debt = CacheDebt(
        "eu_main", EU, cache, MemoryCacheDebt(), DebtPolicy(patterns=("order:*",)), clock=clock, observer=Recorder()
    )
    settler, both = Settler(debt), Share(seated=True, workers=2, others=frozenset({"a"}), lease_seconds=10.0)
    await settler.look(both)
    await asyncio.sleep(700)
    cache.says = replace(A, run_id="b", uptime_seconds=5000)
    await settler.look(both)
    assert (debt.counts.restores, list(cache.entries)) == (1, ["order:k1"])
    await asyncio.sleep(100 if late else 15)
    await settler.look(replace(both, workers=1, others=frozenset()))
    assert list(cache.entries) == (["order:k1"] if late else [])


async def test_a_batch_of_more_than_is_remembered_takes_effect_and_is_not_taken_for_remembered() -> None:
    world = shop(DebtPolicy(max_keys=3, patterns=("order:*",)))
    async with world.process(*RULES) as process:
        await asyncio.sleep(700)
        world.write(names(*range(10)))
        await until(lambda: world.stored() == world.records()[-1].sequence)
        assert process.observer.of("shard_failed") == []
    assert stale(world) == set()
    recent = Recent(60.0, 3, 0.0)
    recent.note(names(*range(10)), 100.0)
    assert recent.keys() == []
    assert not recent.remembers(110.0)
    assert recent.remembers(161.0)


async def test_a_server_that_came_back_while_no_worker_lived_is_noticed() -> None:
    world = shop()
    cache, rows = world.caches["eu_main"], world.debts["eu_main"]
    cache.says = A
    async with world.process(*RULES):
        await until(lambda: rows.server_row is not None)
    cache.says = replace(A, run_id="b", uptime_seconds=5000)
    async with world.process(*RULES):
        await until(lambda: set(cache.entries) == {"other"})
        await until(lambda: rows.server_row is not None and rows.server_row.run_id == "b")


Mutation = Callable[[pytest.MonkeyPatch], None]


def notes_nothing(patch: pytest.MonkeyPatch) -> None:
    async def put(self: Any, entries: Any) -> None:
        """The position moves, and no row is there."""

    patch.setattr(MemoryCacheDebt, "put", put)


def compares_nothing(patch: pytest.MonkeyPatch) -> None:
    async def settle(self: MemoryCacheDebt, entries: Any) -> None:
        async with self.faults.around("settle_debt"):
            for entry in entries:
                self.rows.pop(entry.row_id, None)

    patch.setattr(MemoryCacheDebt, "settle", settle)


def looks_after_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("replicator.engine.applying.cache_settling.Settler._is_due", lambda self: False)


def forgets_refusals(patch: pytest.MonkeyPatch) -> None:
    ask = CacheDebt.ask

    async def asked(self: CacheDebt, actions: Any, seconds: float) -> Any:
        answer = await ask(self, actions, seconds)
        return type(answer)(answer.changed, answer.unstored)

    patch.setattr(CacheDebt, "ask", asked)


def trusts_every_server(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("replicator.engine.applying.cache_settling.again", lambda *_, **__: Again.NOTHING)


def waits_for_ever(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("replicator.engine.applying.cache_debt._PATIENCE_SECONDS", 1e9)


@pytest.mark.parametrize(
    ("mutate", "scenario"),
    [
        (notes_nothing, test_what_a_dead_worker_left_is_settled_by_another_one),
        (looks_after_nothing, test_what_a_dead_worker_left_is_settled_by_another_one),
        (looks_after_nothing, test_a_flush_that_a_dead_worker_owed_is_made_by_another_one),
        (compares_nothing, test_what_became_owed_again_while_it_was_dropped_stays_owed),
        (
            forgets_refusals,
            test_an_entry_that_is_refused_by_itself_is_owed_and_keeps_no_other_one_back,
        ),
        (trusts_every_server, test_what_a_server_that_took_over_may_lack_is_dropped_again),
        (trusts_every_server, test_a_server_that_came_back_while_no_worker_lived_is_noticed),
        (waits_for_ever, test_a_cache_that_does_not_answer_at_all_delays_a_replica_for_a_moment_only),
    ],
    ids=lambda value: value.__name__,
)
async def test_a_mutant_is_found(
    monkeypatch: pytest.MonkeyPatch, mutate: Mutation, scenario: Callable[[], Awaitable[None]]
) -> None:
    mutate(monkeypatch)
    with pytest.raises(AssertionError):
        await scenario()


async def test_a_cache_that_comes_while_a_worker_runs_is_settled_too() -> None:
    world, cache, rows = shop(), MemoryCache(), MemoryCacheDebt()
    cache.entries["order:late"] = STALE
    await rows.put([OwedEntry("order:late", "of a worker that is gone", 0.0)])
    async with world.process(*RULES) as process:
        await until(lambda: world.stored() is not None)
        policy, observer = DebtPolicy(patterns=("order:*",)), process.observer
        late = CacheDebt("eu_late", EU, cache, rows, policy, clock=process.clock, observer=observer)
        process.debts.append(Settler(late))
        process.sources.put([replace(source) for source in process.sources.now])
        await until(lambda: not rows.rows, within=60)
        assert "order:late" not in cache.entries
