"""Waiting for something that does not answer: one tries it now and then, and its first answer lets all of them go on.

Shared by everything in the process that asks the same thing, whatever shard it works for. Invariant: what waits here
sends nothing; tries begin at most two seconds apart, also while one of them hangs; how much is sent at once when all go
on is for other limits to say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from replicator.domain.errors import ReplicatorError, Unreachable
from replicator.domain.health import Health
from replicator.engine.waiting import Stopped, jitter

NEVER = float("inf")

_HANGS_SECONDS = 1.0
"""What has waited for so long when something answers again was sent to what was away."""

Answer = TypeVar("Answer")


class _Rest:
    """One that waits. `told`: it knows of the trouble. `empty`: it has nothing to try. `may_try`: its turn came."""

    __slots__ = ("empty", "may_try", "timeout", "told")

    def __init__(self, timeout: asyncio.Timeout, *, told: bool, empty: bool) -> None:
        self.timeout = timeout
        self.told = told
        self.empty = empty
        self.may_try = False

    def end(self) -> None:
        if not self.timeout.expired():
            self.timeout.reschedule(asyncio.get_running_loop().time())


class Trial:
    """What one task asks, one thing after the other. `began`: when it asked what it waits for; infinite between."""

    __slots__ = ("_cancelling", "_given_up", "_task", "began")

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self._task = task
        self._cancelling = task.cancelling()
        self._given_up = False
        self.began = NEVER

    async def attempt(self, doing: Coroutine[Any, Any, Answer], now: float) -> Answer:
        """Do something that may be repeated; what hangs since before it came back is given up, to be tried again."""
        self.began = now
        try:
            return await doing
        except asyncio.CancelledError as error:
            # As a timeout of the standard library does it; making one costs more than all the rest here.
            if self._given_up and self._task.cancelling() - 1 <= self._cancelling:
                raise Unreachable("It did not answer, and others were answered since.") from error
            raise
        finally:
            self.began = NEVER
            if self._given_up:
                self._given_up = False
                self._task.uncancel()

    def give_up(self, began: float) -> None:
        """End what was asked then, if it still hangs."""
        if self.began == began and not self._given_up:
            self._given_up = True
            self._task.cancel()


class Probing:
    """One thing that is asked, and all that wait while it is away; first come, first served."""

    def __init__(self) -> None:
        self.health = Health()
        self._resting: dict[asyncio.Timeout, _Rest] = {}
        self._trials: set[Trial] = set()
        self._next: asyncio.TimerHandle | None = None

    @property
    def error(self) -> ReplicatorError | None:
        """Why it is away; None while it is not."""
        return self.health.error if self.health.away else None

    @property
    def resting(self) -> int:
        """How many wait."""
        return len(self._resting)

    def answered(self) -> None:
        """It answered: everything that waits goes on."""
        if self.health.answered(_now()):
            if self._next is not None:
                self._next.cancel()
                self._next = None
            for rest in self._resting.values():
                rest.end()
            for trial in self._trials:
                if trial.began < _now() - _HANGS_SECONDS:
                    asyncio.get_running_loop().call_soon(trial.give_up, trial.began)

    @contextmanager
    def trying(self) -> Iterator[Trial]:
        """What the current task asks here."""
        task = asyncio.current_task()
        assert task is not None, "a coroutine runs in a task"
        trial = Trial(task)
        self._trials.add(trial)
        try:
            yield trial
        finally:
            self._trials.discard(trial)

    async def attempt(self, doing: Coroutine[Any, Any, Answer]) -> Answer:
        """Do one thing that may be repeated; what hangs since before it came back is given up, to be tried again."""
        with self.trying() as trial:
            return await trial.attempt(doing, _now())

    def failed(self, asked_by: Hashable, error: ReplicatorError, began: float) -> bool:
        """A try that began then, by the loop's time, got no answer; whether what asked is to wait for its turn."""
        waits = self.health.failed(asked_by, error, began, _now())
        self._tell()
        return waits

    async def turn(self, stop: asyncio.Event, *, told: bool, empty: bool = False) -> ReplicatorError | None:
        """Return at once while it answers; else wait for a turn to try it, or for an answer.

        What is `empty` has to get first what it could try, so it has a turn only when nothing else waits for one: turns
        that are used to read again could be all there are, when memory is short.

        Returns None when it may be tried, or why it is away, when that lasts and what asks was not `told`. Raises
        `Stopped` when `stop` is set.
        """
        while self.health.away:
            if not told and self.health.is_troubled(_now()):
                return self.health.error
            rest: _Rest | None = None
            try:
                async with asyncio.timeout(None) as timeout:
                    rest = self._resting[timeout] = _Rest(timeout, told=told, empty=empty)
                    self._schedule()
                    await stop.wait()
            except TimeoutError:
                if rest is not None and rest.may_try:
                    return None
            else:
                raise Stopped
            finally:
                self._resting.pop(timeout, None)
        return None

    def _schedule(self) -> None:
        if self._next is None and self._resting:
            wait = self.health.next_try_in(jitter())
            self._next = asyncio.get_running_loop().call_later(wait, self._let_one_try)

    def _let_one_try(self) -> None:
        """Let the first one try, and the next one when it is time, whatever becomes of this try."""
        self._next = None
        self._tell()
        waiting = [rest for rest in self._resting.values() if not rest.may_try]
        first = next((rest for rest in waiting if not rest.empty), waiting[0] if waiting else None)
        if first is not None:
            first.may_try = True
            first.end()
        self._schedule()

    def _tell(self) -> None:
        """Let those know of a trouble that lasts that do not know of it yet."""
        if self.health.is_troubled(_now()):
            for rest in self._resting.values():
                if not rest.told:
                    rest.told = True
                    rest.end()


def _now() -> float:
    return asyncio.get_running_loop().time()
