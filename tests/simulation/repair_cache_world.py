"""Every interleaving of a repair beside a cache: what it notes, writes and drops, its death, readers, and what settles.

The version of the item stays the same and no record follows, so an entry of what stood there before looks current for
ever. Entries are changed by the memory cache's own functions; readers fill under leases.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from replicator.domain.cache_keys import Invalidate
from replicator.laboratory.memory import acted

KEY = "order:1"
DAMAGED, MENDED = b"V:7|damaged", b"V:7|mended"
READERS = 2


class Step(enum.IntEnum):
    """What a repair did last."""

    LOOKED = 0
    HELD = 1
    SENT = 2
    WROTE = 3
    DROPPED = 4
    RELEASED = 5


class Reading(NamedTuple):
    """A reader that missed: its lease, and what it loaded."""

    lease: bytes | None = None
    loaded: bytes | None = None


class RepairState(NamedTuple):
    """A moment in a run. `row`: what is owed stands in the table; `over`: it may be settled whoever lives."""

    table: bytes
    entry: bytes | None
    step: Step
    dead: bool
    row: bool
    over: bool
    settles: bool
    readers: tuple[Reading, ...]
    leases: int


@dataclass(frozen=True, slots=True)
class RepairRules:
    """What keeps entries right; a mutant breaks one of them."""

    notes_first: bool = True
    """The row is durable before the write is sent."""
    holds: bool = True
    """Nothing settles the row before the repair released it, or must be over."""
    outlives: bool = True
    """It counts as over only when a write that was sent before its end can come no more."""
    settles_by_drop: bool = True
    """The entry is dropped before the row goes."""


def explore(rules: RepairRules = RepairRules(), *, most_leases: int = 3) -> tuple[int, RepairState | None]:
    """States seen, and one that stays stale for good (None: none does)."""
    start = RepairState(DAMAGED, DAMAGED, Step.LOOKED, False, False, False, False, (Reading(),) * READERS, 0)
    seen, todo = {start}, [start]
    while todo:
        state = todo.pop()
        idle = state.readers == (Reading(),) * READERS and not state.settles
        rests = (state.dead and state.over) or state.step is Step.RELEASED
        if state.table == MENDED and state.entry == DAMAGED and rests and idle and not state.row:
            return len(seen), state
        for after in _moves(state, rules, most_leases):
            if after not in seen:
                seen.add(after)
                todo.append(after)
    return len(seen), None


def _moves(state: RepairState, rules: RepairRules, most_leases: int) -> Iterator[RepairState]:
    if not state.dead:
        yield from _repairs(state, rules)
        if state.step is not Step.RELEASED:
            yield state._replace(dead=True)
    elif state.step is Step.SENT:  # it died with a request on its way
        if not state.over or not rules.outlives:
            yield state._replace(step=Step.WROTE, table=MENDED)
        yield state._replace(step=Step.HELD)
    if state.dead and (state.step is not Step.SENT or not rules.outlives):
        yield state._replace(over=True)
    yield from _settles(state, rules)
    if state.entry is not None:
        yield state._replace(entry=None)  # evicted
    for index, reader in enumerate(state.readers):
        for after, now in _reads(state, reader, most_leases):
            others = (*state.readers[:index], *state.readers[index + 1 :])
            yield after._replace(readers=tuple(sorted((*others, now), key=repr)))


def _repairs(state: RepairState, rules: RepairRules) -> Iterator[RepairState]:
    match state.step:
        case Step.LOOKED:
            yield state._replace(step=Step.HELD, row=rules.notes_first)
        case Step.HELD:
            yield state._replace(step=Step.SENT)
        case Step.SENT:
            yield state._replace(step=Step.WROTE, table=MENDED)
        case Step.WROTE if not rules.notes_first and not state.row:
            yield state._replace(row=True)
        case Step.WROTE:
            yield state._replace(step=Step.DROPPED, entry=acted(state.entry, Invalidate(KEY)))
        case _:
            yield state._replace(step=Step.RELEASED)


def _settles(state: RepairState, rules: RepairRules) -> Iterator[RepairState]:
    if state.settles:
        yield state._replace(settles=False, row=False)
    elif state.row and (state.over or state.step is Step.RELEASED or not rules.holds):
        dropped = acted(state.entry, Invalidate(KEY)) if rules.settles_by_drop else state.entry
        yield state._replace(settles=True, entry=dropped)


def _reads(state: RepairState, reader: Reading, most_leases: int) -> Iterator[tuple[RepairState, Reading]]:
    if reader.lease is None:
        if state.entry is None and state.leases < most_leases:
            lease = b"L:%d" % state.leases
            yield state._replace(entry=lease, leases=state.leases + 1), Reading(lease)
    elif reader.loaded is None:
        yield state, reader._replace(loaded=state.table)
    else:
        filled = reader.loaded if state.entry == reader.lease else state.entry
        yield state._replace(entry=filled), Reading()
