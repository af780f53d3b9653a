"""The gate in front of a target: closed while its world is wrong, so that nothing wrong is sent.

A table that is missing may come back as another one, empty or with another key, and would be written as if nothing had
happened. So what says that a table is not what it was closes the gate at once, and it opens only when the table was
looked at. Invariant: while it is closed no change is begun at the target; what is under way ends as it may.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from replicator.domain.errors import ReplicatorError, SchemaMismatch, TableMissing
from replicator.domain.held import HeldId
from replicator.domain.targets import TargetKind
from replicator.engine.waiting import Flag, Stopped, pause_for_any

_IN_DOUBT = (TableMissing, SchemaMismatch)


class Gate:
    """One target's gate, for all of its shards."""

    def __init__(self, doubted: Callable[[], None] | None = None) -> None:
        """`doubted` is called when a table must be looked at; without it nothing is doubted."""
        self._doubted = doubted
        self._opened = Flag()
        self._opened.set()
        self.error: ReplicatorError | None = None
        """Why it is closed; None while it is open."""

    def close(self, error: ReplicatorError) -> None:
        """Let nothing pass from now on."""
        self.error = error
        self._opened.clear()

    def open(self) -> None:
        """Let everything pass, at once."""
        self.error = None
        self._opened.set()

    def refusal(self) -> ReplicatorError | None:
        """Why it is closed, as an error of its own: one that is raised again and again would grow."""
        error = self.error
        return None if error is None else type(error)(error.message, advice=error.advice)

    def doubt(self, error: ReplicatorError) -> None:
        """Close behind an answer that says that the table is not what it was, until it was looked at."""
        if self._doubted is not None and self.error is None and isinstance(error, _IN_DOUBT):
            self.close(error)
            self._doubted()

    async def passed(self, stop: asyncio.Event) -> None:
        """Wait until it is open; raise `Stopped` when the work is to stop before."""
        while self.error is not None:
            await pause_for_any(float("inf"), self._opened, stop)
            if stop.is_set():
                raise Stopped


class Gates:
    """The gates of a process, by what they hold."""

    def __init__(self) -> None:
        self._gates: dict[HeldId, Gate] = {}
        self.doubted = Flag()
        """Set when a table must be looked at."""

    def of(self, target: HeldId) -> Gate:
        """A target's gate; made at first sight."""
        # What is doubted of a mesh is one of its regions, which has a gate of its own.
        is_mesh = target.target is not None and target.target.kind is TargetKind.MESH
        return self._gates.setdefault(target, Gate(None if is_mesh else self.doubted.set))
