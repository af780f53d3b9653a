"""Sessions, fences and the expiry of others: nothing is sent behind the deadline, no live worker taken for dead."""

from __future__ import annotations

import asyncio

import pytest

from replicator.domain.errors import LeaseLost, Unreachable
from replicator.domain.identifiers import WorkerId
from replicator.engine.limits import Limits
from replicator.engine.membership.heartbeat import Heartbeats, News, heartbeat
from replicator.engine.membership.session import Session, ShardFence
from replicator.laboratory.memory import Faults, MemoryMembership
from tests.engine.world import LoopClock, Recorder, hold, until

ME, OTHER = WorkerId("me"), WorkerId("other")


def session(clock: LoopClock | None = None) -> Session:
    return Session(ME, clock or LoopClock(), lease_seconds=10)


async def test_nothing_may_be_sent_before_the_first_heartbeat() -> None:
    ours = session()
    with pytest.raises(LeaseLost):
        ours.check()
    assert not ours.over.is_set()
    ours.extend(0.0)
    ours.check()
    assert ours.begun.is_set()


async def test_the_deadline_counts_from_the_moment_at_which_the_heartbeat_was_sent() -> None:
    ours = session()
    await asyncio.sleep(5)
    ours.extend(0.0)
    await asyncio.sleep(2.9)
    ours.check()
    await asyncio.sleep(0.2)
    with pytest.raises(LeaseLost):
        ours.check()
    assert ours.over.is_set()


async def test_an_answer_that_comes_behind_the_deadline_does_not_revive_the_session() -> None:
    ours = session()
    ours.extend(0.0)
    await asyncio.sleep(8.1)
    ours.extend(8.0)
    assert ours.over.is_set()
    with pytest.raises(LeaseLost):
        ours.check()


async def test_suspended_time_counts() -> None:
    clock = LoopClock()
    ours = session(clock)
    ours.extend(0.0)
    clock.jumped = 60
    with pytest.raises(LeaseLost):
        ours.check()
    clock.jumped = 0
    with pytest.raises(LeaseLost):
        ours.check()


async def test_a_shard_that_went_to_somebody_else_is_fenced_although_the_session_lives() -> None:
    ours = session()
    ours.extend(0.0)
    mine, theirs = ShardFence(ours), ShardFence(ours)
    theirs.revoke()
    mine.check()
    with pytest.raises(LeaseLost):
        theirs.check()
    assert not ours.over.is_set()


# -- the heartbeat -------------------------------------------------------------------------------------------------


class Life:
    """A session whose heart beats."""

    def __init__(self) -> None:
        self.clock = LoopClock()
        self.session = session(self.clock)
        self.membership = MemoryMembership(Faults())
        self.observer = Recorder()
        self.news = News()
        self.task = asyncio.create_task(
            heartbeat(
                self.session,
                self.membership,
                self.clock,
                self.observer,
                limits=Limits(heartbeat_seconds=3),
                news=self.news,
            )
        )


async def test_a_session_lives_as_long_as_its_heartbeats_are_stored() -> None:
    life = Life()
    await asyncio.sleep(100)
    life.session.check()
    assert (await life.membership.members())[ME].beat == pytest.approx(34, abs=1)
    life.session.over.set()
    await life.task


async def test_a_short_outage_is_told_and_survived() -> None:
    life = Life()
    await asyncio.sleep(1)
    life.membership.faults.outage = Unreachable
    await asyncio.sleep(5)
    assert "heartbeat" in life.observer.troubles
    life.membership.faults.outage = None
    await asyncio.sleep(2)
    assert life.observer.troubles == {}
    life.session.check()
    life.session.over.set()
    await life.task


async def test_an_outage_that_outlives_the_deadline_ends_the_session() -> None:
    life = Life()
    await asyncio.sleep(1)
    life.membership.faults.outage = Unreachable
    await life.task
    assert life.session.over.is_set()
    assert asyncio.get_running_loop().time() == pytest.approx(8, abs=0.1)


async def test_a_heartbeat_that_takes_too_long_names_what_may_be_slow_and_what_to_do() -> None:
    life = Life()
    await asyncio.sleep(1)
    hold(life.membership.faults, "beat")
    await life.task
    trouble = life.observer.troubles["heartbeat"]
    assert trouble.message == "The heartbeat took longer than a lease."
    for word in ("coordination table", "latency", "ThrottledRequests", "coordination.lease"):
        assert word in trouble.advice


async def test_a_heartbeat_without_an_answer_ends_the_session_at_its_deadline() -> None:
    life = Life()
    await asyncio.sleep(1)
    hold(life.membership.faults, "beat")
    await life.task
    assert life.session.over.is_set()
    assert asyncio.get_running_loop().time() == pytest.approx(8, abs=0.1)
    assert "heartbeat" in life.observer.troubles


async def test_a_recovery_is_told_even_by_the_next_session() -> None:
    life = Life()
    await asyncio.sleep(1)
    life.membership.faults.outage = Unreachable
    await life.task
    life.membership.faults.outage = None
    successor = session(life.clock)
    task = asyncio.create_task(
        heartbeat(successor, life.membership, life.clock, life.observer, limits=Limits(), news=News())
    )
    await until(successor.begun.is_set)
    assert life.observer.troubles == {}
    successor.over.set()
    await task


# -- others --------------------------------------------------------------------------------------------------------


class Watch:
    """What one observer makes of another worker's counter."""

    def __init__(self) -> None:
        self.heartbeats = Heartbeats(10)

    def sees(self, at: float, counter: int | None, *, answered_at: float | None = None, owns: bool = True) -> bool:
        """Whether the other counts as expired, by a question asked at this time."""
        counters = {} if counter is None else {OTHER: counter}
        return OTHER in self.heartbeats.observe(
            counters, [OTHER] if owns else [], asked_at=at, answered_at=at if answered_at is None else answered_at
        )


def test_a_counter_that_stands_still_for_the_lease_time_has_expired() -> None:
    watch = Watch()
    assert [watch.sees(at, 7) for at in (0, 5, 9.9, 10, 11)] == [False, False, False, True, True]


def test_a_counter_that_moves_never_expires() -> None:
    watch = Watch()
    assert not any(watch.sees(at, at) for at in range(0, 100, 9))


def test_a_counter_is_not_expired_by_an_answer_that_took_long() -> None:
    watch = Watch()
    assert not watch.sees(0, 7, answered_at=60), "suspended between question and answer"
    assert not watch.sees(61, 7)
    assert watch.sees(70, 7)


def test_an_owner_without_a_row_expires_like_one_that_stands_still() -> None:
    watch = Watch()
    assert not watch.sees(0, None)
    assert watch.sees(10, None)


def test_a_row_that_goes_away_is_no_sign_of_life() -> None:
    watch = Watch()
    watch.sees(0, 7)
    assert not watch.sees(6, None)
    assert watch.sees(10, None)


def test_a_worker_that_comes_back_is_alive() -> None:
    watch = Watch()
    watch.sees(0, None)
    assert not watch.sees(12, 1)
    assert not watch.sees(21, 1)
    assert watch.sees(22, 1)


def test_workers_that_are_gone_and_own_nothing_are_forgotten() -> None:
    watch = Watch()
    watch.sees(0, 7)
    watch.sees(1, None, owns=False)
    assert watch.heartbeats._seen == {}
