"""What really happened, which no worker can read, and whether what is left at the end does justice to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from tests.simulation.active_scenario import Scenario


class Truth(NamedTuple):
    """A user's write as it really was: when it counts as made, and which writes it had seen."""

    moment: int
    seen: frozenset[int]


@dataclass(frozen=True, slots=True)
class Judge:
    """Knows of every write, by its number, what kind it was and in which region; write 0 is the start."""

    kinds: Mapping[int, str]
    homes: Mapping[int, int]

    def _is_delete(self, write: int) -> bool:
        return self.kinds[write] in "DT"

    def wrong_winner(self, truth: dict[int, Truth], final: int | None) -> str | None:
        """What is wrong with the write that is left (None: nothing is), if anything."""
        writes = [write for write in truth if write]
        if final is not None:
            for write in writes:
                if final in truth[write].seen:
                    return f"CAUSAL: write {final} won although write {write} overwrote it"
                later = truth[write].moment > truth[final].moment
                if write not in {final, *truth[final].seen} and later:
                    return f"LATER: write {final} won although write {write} was later"
            return None
        for delete in filter(self._is_delete, truth):
            beaten = truth[delete]
            if all(
                write in {delete, *beaten.seen}
                or (delete not in truth[write].seen and truth[write].moment <= beaten.moment)
                or self._is_delete(write)
                for write in writes
            ):
                return None
        if all(map(self._is_delete, writes)):
            return None
        return "RESURRECTION OR LOSS: nothing is left although no delete was the last write"

    def unlogged(self, truth: dict[int, Truth], final: int | None, over: set[int], log: int) -> str | None:
        """A write that was lost without an entry; `over`: the writes that are shown, `log`: those that are logged."""
        kept = over.union(*(truth[write].seen for write in over))
        lost = [write for write in truth if write and write not in kept]
        for write in lost:
            if any(write in truth[other].seen for other in lost):
                continue  # a later writer of the same branch owns it
            if self._is_delete(write) and (final is None or self._needs_no_entry(truth, write, kept)):
                continue
            if not log >> write & 1:
                return f"UNLOGGED: write {write} ({self.kinds[write]}) was lost"
        return None

    def _needs_no_entry(self, truth: dict[int, Truth], delete: int, kept: set[int]) -> bool:
        """Whether a lost delete was merged with a concurrent one, or superseded in its own region."""
        mine = truth[delete]
        for other, its in truth.items():
            if other in {0, delete}:
                continue
            concurrent = self._is_delete(other) and other not in mine.seen and delete not in its.seen
            if concurrent and (other in kept or its.moment >= mine.moment):
                return True
            if self.homes[other] == self.homes[delete] and other > delete:
                return True
        return False


@lru_cache(maxsize=16)
def judge_of(scenario: Scenario) -> Judge:
    """What is known of the writes of a scenario, whatever happens to them."""
    every = [(op.kind, region) for region, mine in enumerate(scenario.ops) for op in mine]
    kinds = dict(enumerate([_start_kind(scenario), *(kind for kind, _ in every)]))
    homes = dict(enumerate([0 if scenario.start is None else scenario.start[1], *(region for _, region in every)]))
    return Judge(kinds, homes)


def _start_kind(scenario: Scenario) -> str:
    """What write 0, which is there at the start, counts as."""
    if scenario.start is None:
        return "-"
    return "D" if scenario.start[0] in {"tombstone", "buried"} else "P"
