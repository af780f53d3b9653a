"""Who else works: pulses that stand still, news, workers that leave, and rules that are paused."""

from __future__ import annotations

import asyncio
from itertools import groupby

from replicator.domain.drivers import Drivers
from replicator.domain.driving import Driving
from replicator.domain.errors import Unreachable
from replicator.domain.identifiers import RuleName, WorkerId
from replicator.domain.shards.leases import LEAVING, Pulse
from replicator.engine.limits import Limits
from replicator.engine.membership.heartbeat import News
from replicator.engine.membership.members import Members
from replicator.engine.membership.session import Session
from replicator.laboratory.memory import Faults, MemoryMembership
from tests.engine.world import LoopClock, Recorder, until

ME, OTHER = WorkerId("me"), WorkerId("other")


class Sight:
    """One session that watches the others; the other one beats as a test says."""

    def __init__(self) -> None:
        self.clock = LoopClock()
        self.membership = MemoryMembership(Faults())
        self.observer = Recorder()
        self.news = News()
        self.session = Session(ME, self.clock, lease_seconds=10)
        self.members = Members(
            self.session, self.news, self.membership, limits=Limits(), clock=self.clock, observer=self.observer
        )
        self.woken = 0
        self.members.listen(self.wake)
        self.task = asyncio.create_task(self.members.watch())

    def wake(self) -> None:
        self.woken += 1

    async def other_beats(self, seconds: float, *, news: int = 0) -> None:
        for beat in range(int(seconds)):
            await self.membership.beat(OTHER, Pulse(100 * news + beat + 1, news))
            await asyncio.sleep(1)


async def test_everybody_who_beats_is_live_and_so_are_we_before_anybody_saw_us() -> None:
    sight = Sight()
    assert not sight.members.known.is_set()
    await sight.other_beats(30)
    assert sight.members.known.is_set()
    assert sight.members.live == {ME, OTHER}
    assert not sight.members.is_expired(OTHER)


async def test_a_worker_that_stands_still_is_expired_and_wakes_us() -> None:
    sight = Sight()
    await sight.other_beats(5)
    woken = sight.woken
    await asyncio.sleep(8)
    assert sight.woken == woken
    await until(lambda: sight.members.is_expired(OTHER), within=2)
    assert sight.members.live == {ME}
    assert sight.woken == woken + 1


async def test_an_owner_without_a_pulse_is_expired_behind_the_lease_time() -> None:
    sight = Sight()
    sight.members.note_owners("a stream", [OTHER, ME])
    await asyncio.sleep(9)
    assert not sight.members.is_expired(OTHER)
    await until(lambda: sight.members.is_expired(OTHER), within=2)
    assert not sight.members.is_expired(ME), "our own shards are not taken for those of a dead worker"


async def test_the_row_of_a_dead_worker_is_removed_when_everybody_has_had_time_to_see_it() -> None:
    sight = Sight()
    await sight.other_beats(1)
    await asyncio.sleep(18)
    assert OTHER in await sight.membership.members()
    await asyncio.sleep(5)
    assert OTHER not in await sight.membership.members()


async def test_news_wakes_whoever_listens_within_a_second() -> None:
    sight = Sight()
    await sight.other_beats(5, news=1)
    woken = sight.woken
    await sight.other_beats(1, news=2)
    assert sight.woken == woken + 1


async def test_a_heartbeat_without_news_wakes_nobody() -> None:
    sight = Sight()
    await sight.other_beats(2)
    woken = sight.woken
    await sight.other_beats(60)
    assert sight.woken == woken


async def test_a_worker_that_is_about_to_leave_counts_no_more() -> None:
    sight = Sight()
    await sight.other_beats(2)
    await sight.membership.beat(OTHER, Pulse(9, LEAVING))
    await asyncio.sleep(1)
    assert sight.members.live == {ME}
    assert not sight.members.is_expired(OTHER), "its shards are its own until it gives them back"


async def test_our_own_leave_is_told_once_and_we_count_no_more() -> None:
    sight = Sight()
    await sight.other_beats(2)
    sight.members.leave()
    sight.members.leave()
    assert sight.news.pulse(1).news == LEAVING - 1
    await sight.other_beats(2)
    assert sight.members.live == {OTHER}


async def test_nothing_is_announced_to_nobody() -> None:
    sight = Sight()
    await asyncio.sleep(1)
    sight.members.announce()
    assert not sight.news.due.is_set()
    await sight.other_beats(1)
    sight.members.announce()
    assert sight.news.due.is_set()


async def test_paused_rules_are_seen_within_a_heartbeat_and_wake_us() -> None:
    sight = Sight()
    await asyncio.sleep(1)
    woken = sight.woken
    sight.membership.pause(RuleName("orders"))
    await until(lambda: set(sight.members.paused) == {"orders"}, within=4)
    sight.membership.resume(RuleName("orders"))
    await until(lambda: not sight.members.paused, within=4)
    assert sight.woken == woken + 2
    assert [told for told, _ in groupby(sight.observer.of("paused"))] == [(), ("orders",), ()]


async def test_an_outage_is_told_and_what_was_seen_before_still_counts() -> None:
    sight = Sight()
    await sight.other_beats(3)
    sight.membership.faults.outage = Unreachable
    await asyncio.sleep(5)
    assert "members" in sight.observer.troubles
    assert sight.members.live == {ME, OTHER}
    sight.membership.faults.outage = None
    await sight.other_beats(5)
    assert sight.observer.troubles == {}


async def test_nobody_looks_when_the_session_is_over() -> None:
    sight = Sight()
    await asyncio.sleep(1)
    sight.session.over.set()
    await sight.task


async def test_whoever_looks_no_more_is_not_woken() -> None:
    sight = Sight()
    await sight.other_beats(2, news=1)
    sight.members.unlisten(sight.wake)
    woken = sight.woken
    await sight.other_beats(2, news=2)
    assert sight.woken == woken


async def test_a_rule_that_functions_drive_rests_and_comes_back_a_lease_after_it_was_handed_back() -> None:
    sight = Sight()
    rule, lease = RuleName("orders"), Limits().lease_seconds
    sight.membership.driving[rule] = Driving(Drivers.LAMBDA, since=5.0, age=0.0)
    await until(lambda: dict(sight.members.paused) == {rule: 5.0})
    assert sight.observer.of("paused")[-1] == (rule,)
    sight.membership.driving[rule] = Driving(Drivers.LAMBDA, since=5.0, age=10 * lease)
    await asyncio.sleep(10)
    assert rule in sight.members.paused
    sight.membership.driving[rule] = Driving(Drivers.PODS, since=100.0, age=lease)
    await asyncio.sleep(10)
    assert rule in sight.members.paused
    woken = sight.woken
    sight.membership.driving[rule] = Driving(Drivers.PODS, since=100.0, age=lease + 2)
    await until(lambda: not sight.members.paused)
    assert sight.woken > woken
    sight.task.cancel()
