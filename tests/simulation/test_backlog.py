"""A backlog is brought at the speed of its writes, in every mode, also after another region was away.

Virtual time: every call to a table takes a hundredth of a second and nothing else takes time, so what is counted are
calls, and whatever waits for something that does not come shows at once. The bound is per record, not per run.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pytest

from replicator.domain.errors import Unreachable
from replicator.domain.identifiers import RegionId
from replicator.domain.modes.active_active import replicate
from replicator.domain.modes.active_active.mesh import Mesh, Write
from replicator.domain.modes.requests import FoundAhead, LookAhead, MeshRequest, MeshResponse, Remover, Steps
from replicator.domain.records import ChangeRecord
from replicator.domain.stamps import SideRow
from replicator.engine.applying import mesh_driver, partner
from replicator.engine.applying.context import Tally
from replicator.engine.applying.mesh_driver import MeshDriver
from replicator.engine.limits import Limits
from replicator.engine.waiting import pause_or_raise
from replicator.laboratory.memory import Slot
from tests.engine.mesh_world import ACTIVE, MODES, MeshWorld, item
from tests.engine.world import AP, EU, US, World, eu_rule, key_of, until
from tests.seeds import first

pytestmark = pytest.mark.usefixtures("virtual_time")

KEYS = 60
CALL_SECONDS = 0.01
LIMITS = Limits(page_records=16, concurrency=8)
"""Pages are small, so that what belongs to one key lies in pages far apart, further than anything is read ahead."""

CALLS_PER_RECORD = 16
"""Calls to tables for one record of a user, its echoes in three regions included."""

PROBE_CALLS_PER_SECOND = 2
"""What regions that answer are asked for while another one is tried, however much it is owed."""

IDLE_SECONDS = 10.0
"""For everything that is not a record: leases, polls, the last retry behind an outage."""


@dataclass
class Backlog:
    """A mesh that users write to while no daemon runs."""

    mode: str
    regions: tuple[RegionId, ...] = (US, EU, AP)

    def __post_init__(self) -> None:
        self.world = MeshWorld(self.mode, *self.regions)
        self.calls: Counter[RegionId] = Counter()
        self.written = 0
        self._version = 0
        for region in self.regions:
            self.world[region].faults.pause = partial(self._call, region)

    async def _call(self, region: RegionId, call: str) -> None:
        del call
        self.calls[region] += 1
        await asyncio.sleep(CALL_SECONDS)

    def put(self, region: RegionId, *, update: bool = False) -> None:
        """One write to every key."""
        self._version += 1
        for number in range(KEYS):
            table = self.world[region]
            (table.update if update else table.put)(f"k{number}", f"{region} {self._version}", ver=self._version)
        self.written += KEYS

    def delete(self, region: RegionId) -> None:
        """One delete of every key."""
        for number in range(KEYS):
            self.world[region].delete(f"k{number}")
        self.written += KEYS

    def is_read(self) -> bool:
        """Whether every record of every region is behind its stored position."""
        return all(
            not records or self.world.stored(region) == records[-1].sequence
            for region, records in ((region, self.world.records(region)) for region in self.regions)
        )

    async def brought(self) -> float:
        """Let a daemon bring everything everywhere; seconds until it has."""
        loop = asyncio.get_running_loop()
        async with self.world.process(limits=LIMITS) as process:
            began = loop.time()
            await until(self.is_read, within=2000)
            took = loop.time() - began
            await process.drain()
            assert process.observer.faults == []
        self.world.agreed()
        return took


def most_seconds(records: int) -> float:
    """How long so many records may take: every call of each, in as many lanes as keys are worked on at once."""
    return records * CALLS_PER_RECORD * CALL_SECONDS / LIMITS.concurrency + IDLE_SECONDS


# -- what users may have done meanwhile ----------------------------------------------------------------------------


def created_and_deleted(backlog: Backlog) -> None:
    backlog.put(US)
    backlog.delete(US)


def used_again_and_again(backlog: Backlog) -> None:
    for _ in range(3):
        created_and_deleted(backlog)


def changed(backlog: Backlog) -> None:
    backlog.put(US)
    backlog.put(US, update=True)
    backlog.put(US, update=True)


def written_in_two_regions(backlog: Backlog) -> None:
    backlog.put(US)
    backlog.put(EU)


def deleted_here_and_changed_there(backlog: Backlog) -> None:
    backlog.delete(EU)
    backlog.put(US, update=True)


def over_items_of_before_the_start(backlog: Backlog) -> None:
    """Other regions hold items that no record tells of, so no stamp ever comes."""
    for region in (EU, AP):
        for number in range(KEYS):
            backlog.world[region].slots[key_of(f"k{number}")] = Slot(item(f"k{number}", "of before", ver=0))
    backlog.put(US)


BACKLOGS = [
    over_items_of_before_the_start,
    created_and_deleted,
    deleted_here_and_changed_there,
    used_again_and_again,
    changed,
    written_in_two_regions,
]


async def caught_up(mode: str, deed: Callable[[Backlog], None]) -> None:
    """A daemon that comes an hour late brings a backlog in the time that its writes take."""
    backlog = Backlog(mode)
    if deed not in {created_and_deleted, over_items_of_before_the_start}:  # the keys are known everywhere, or were once
        backlog.put(US)
        if deed is used_again_and_again:
            backlog.delete(US)
        await backlog.brought()
        backlog.calls.clear()
        backlog.written = 0
    deed(backlog)
    await asyncio.sleep(3600)
    took = await backlog.brought()
    calls = backlog.calls.total() / backlog.written
    assert calls <= CALLS_PER_RECORD, f"{calls:.1f} calls for every record"
    assert took <= most_seconds(backlog.written), f"{took:.0f} s for {backlog.written} records"


@pytest.mark.parametrize("deed", first(3, BACKLOGS))
@pytest.mark.parametrize("mode", MODES)
async def test_a_backlog_of_a_mesh_takes_as_long_as_its_writes(mode: str, deed: Callable[[Backlog], None]) -> None:
    await caught_up(mode, deed)


async def test_a_backlog_of_mode_ordered_takes_as_long_as_its_writes() -> None:
    world, calls = World("s0"), Counter[str]()

    async def call(what: str) -> None:
        calls[what] += 1
        await asyncio.sleep(CALL_SECONDS)

    world.region.faults.pause = call
    names = [f"k{number}" for number in range(KEYS)]
    for _ in range(3):
        world.write(names)
        for name in names:
            world.delete(name)
    await asyncio.sleep(3600)
    loop = asyncio.get_running_loop()
    async with world.process(eu_rule(), limits=LIMITS) as process:
        began = loop.time()
        await until(lambda: world.stored() == world.records()[-1].sequence, within=2000)
        assert loop.time() - began <= most_seconds(6 * KEYS)
        await process.drain()
    assert world.same()
    assert calls.total() <= CALLS_PER_RECORD * 6 * KEYS


# -- while a region is away ----------------------------------------------------------------------------------------


async def outlasted(mode: str, deed: Callable[[Backlog], None]) -> None:
    """An outage costs the regions that answer nothing while it lasts, and its backlog is brought like any other."""
    backlog = Backlog(mode)
    world = backlog.world
    created_and_deleted(backlog)  # so a tombstone stands under every key
    await backlog.brought()
    backlog.calls.clear()
    backlog.written = 0
    loop = asyncio.get_running_loop()
    async with world.process(limits=LIMITS) as process:
        await asyncio.sleep(IDLE_SECONDS)
        world[EU].faults.outage = Unreachable
        deed(backlog)
        await asyncio.sleep(60)
        calls = backlog.calls[US] + backlog.calls[AP]
        await asyncio.sleep(400)
        more = backlog.calls[US] + backlog.calls[AP] - calls
        assert more <= PROBE_CALLS_PER_SECOND * 400, "regions that have answered are asked again"
        world[EU].faults.outage = None
        began = loop.time()
        await until(lambda: backlog.is_read() and world.owes_nothing(), within=2000)
        took = loop.time() - began
        await process.drain()
    world.agreed()
    backlog.calls[EU] = 0  # it was asked again and again
    assert backlog.calls.total() <= CALLS_PER_RECORD * backlog.written
    assert took <= most_seconds(backlog.written) + LIMITS.backoff_seconds, f"{took:.0f} s"


@pytest.mark.parametrize("deed", first(1, [changed, created_and_deleted, used_again_and_again, written_in_two_regions]))
@pytest.mark.parametrize("mode", MODES)
async def test_an_outage_costs_nothing_by_its_length_and_its_backlog_is_brought_as_fast(
    mode: str, deed: Callable[[Backlog], None]
) -> None:
    await outlasted(mode, deed)


# -- with a rule taken out -----------------------------------------------------------------------------------------


async def _answer_or_wait(self: MeshDriver, request: MeshRequest, record: ChangeRecord, tally: Tally) -> MeshResponse:
    """As before, but wait three seconds for a removal that was not read yet."""
    response = await _ANSWER(self, request, record, tally)
    if isinstance(request, LookAhead) and response == FoundAhead(Remover.UNKNOWN):
        await pause_or_raise(self._context.stop, 3.0)
        response = await _ANSWER(self, request, record, tally)
    return response


_ANSWER = MeshDriver._answer


def _always_ahead(_mesh: Mesh, write: Write, _row: SideRow) -> Steps[bool]:
    answer = yield LookAhead(write.key, write.sequence)
    assert isinstance(answer, FoundAhead)
    return answer.remover is Remover.USER


@pytest.mark.parametrize("deed", first(1, [created_and_deleted, used_again_and_again]))
async def test_a_removal_that_is_waited_for_is_noticed(
    deed: Callable[[Backlog], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MeshDriver, "_answer", _answer_or_wait)
    monkeypatch.setattr(replicate, "user_deleted", _always_ahead)
    with pytest.raises(AssertionError, match="s for"):
        await caught_up(ACTIVE, deed)


async def test_old_records_that_wait_for_a_stamp_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mesh_driver, "_FRESH_SECONDS", float("inf"))
    with pytest.raises(AssertionError, match="calls for"):
        await caught_up(ACTIVE, over_items_of_before_the_start)


@pytest.mark.parametrize("mode", first(1, MODES))
async def test_regions_that_are_asked_again_at_every_try_are_noticed(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partner, "_PROBE_SECONDS", 0.2)
    with pytest.raises(AssertionError, match="asked again"):
        await outlasted(mode, changed)
