"""Waiting: bounded, jittered, and over at once when the program stops."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection, Coroutine
from math import inf
from typing import Any, TypeVar

from replicator.domain.errors import ReplicatorError
from replicator.domain.health import PROBE_SECONDS, is_silence

_JITTER = random.Random()  # noqa: S311 - spreads load, decides nothing
_FIRST_SECONDS = 0.05
_MOST_DOUBLINGS = 20
_MOST_QUESTIONS = 10

Answer = TypeVar("Answer")


class Stopped(Exception):
    """The program stops, so this work is given up; what is durable stays durable."""


def jitter() -> float:
    """A random share, from 0 to 1: it parts what began together."""
    return _JITTER.random()


def backoff(attempt: int, longest: float) -> float:
    """Seconds to wait before try number `attempt` + 1: doubling, half of it random."""
    whole: float = min(longest, _FIRST_SECONDS * 2 ** min(attempt, _MOST_DOUBLINGS))
    return whole * (0.5 + 0.5 * jitter())


def retry_in(error: ReplicatorError, attempt: int, longest: float) -> float:
    """Seconds before what failed so is tried again.

    What does not answer may be back at any moment, so it is tried at most two seconds apart; what asks for less, or
    does not change by itself, ever less often.
    """
    return backoff(attempt, min(longest, PROBE_SECONDS) if is_silence(error) else longest)


async def first_answer(ask: Callable[[], Coroutine[Any, Any, Answer]]) -> Answer:
    """The first answer to a small question, which is asked again every two seconds while earlier ones hang.

    It is for what did not answer before: so its return shows soon, though what was asked shortly before it hangs on. A
    failure is an answer, too: what asks tries again by itself.
    """

    async def one() -> Answer | ReplicatorError:
        try:
            return await ask()
        except ReplicatorError as error:
            return error

    async with asyncio.TaskGroup() as group:
        asked = {group.create_task(one(), name="question")}
        while True:
            done, _ = await asyncio.wait(asked, timeout=PROBE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if done:
                break
            if len(asked) < _MOST_QUESTIONS:
                asked.add(group.create_task(one(), name="question"))
        for each in asked - done:
            each.cancel()
    answers = [each.result() for each in done]
    for answer in answers:
        if not isinstance(answer, ReplicatorError):
            return answer
    error = answers[0]
    assert isinstance(error, ReplicatorError), "all of them failed"
    raise error


class Flag(asyncio.Event):
    """An event that pauses end with, without a task for each of them: what is idle does little else."""

    def __init__(self) -> None:
        super().__init__()
        self._pausing: set[asyncio.Future[None]] = set()

    def set(self) -> None:
        """Set it; every pause ends."""
        super().set()
        for pausing in self._pausing:
            _end(pausing)

    async def within(self, seconds: float) -> bool:
        """Wait so long, or less when it is set; returns whether it is."""
        await _until_any(seconds, (self,))
        return self.is_set()

    def end(self, pausing: asyncio.Future[None]) -> None:
        """End that pause, too, when it is set."""
        self._pausing.add(pausing)

    def forget(self, pausing: asyncio.Future[None]) -> None:
        """That pause is over."""
        self._pausing.discard(pausing)


async def _until_any(seconds: float, flags: Collection[Flag]) -> None:
    for flag in flags:
        if flag.is_set():
            return
    loop = asyncio.get_running_loop()
    pausing: asyncio.Future[None] = loop.create_future()
    for flag in flags:
        flag.end(pausing)
    timer = None if seconds == inf else loop.call_later(seconds, _end, pausing)
    try:
        await pausing
    finally:
        if timer is not None:
            timer.cancel()
        for flag in flags:
            flag.forget(pausing)


def _end(pausing: asyncio.Future[None]) -> None:
    if not pausing.done():
        pausing.set_result(None)


async def pause(stop: asyncio.Event, seconds: float) -> bool:
    """Wait, or less when `stop` is set; returns whether it is."""
    if isinstance(stop, Flag):
        return await stop.within(seconds)
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return False
    return True


async def pause_for_any(seconds: float, *events: asyncio.Event) -> None:
    """Wait, or less when one of the events is set."""
    flags = [event for event in events if isinstance(event, Flag)]
    if len(flags) == len(events):
        await _until_any(seconds, flags)
        return
    if any(event.is_set() for event in events):
        return
    async with asyncio.TaskGroup() as group:
        waiting = [group.create_task(event.wait(), name="wait for an event") for event in events]
        await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()


async def pause_or_raise(stop: asyncio.Event, seconds: float) -> None:
    """Wait; raise `Stopped` when the program stops meanwhile."""
    if await pause(stop, seconds):
        raise Stopped


async def unless_stopped(stop: asyncio.Event, question: Coroutine[Any, Any, Answer]) -> Answer:
    """The answer to a question that may wait for long; raise `Stopped` when the program stops before."""
    asking, stopping = asyncio.ensure_future(question), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((asking, stopping), return_when=asyncio.FIRST_COMPLETED)
        if asking.done():
            return asking.result()
        raise Stopped
    finally:
        asking.cancel()
        stopping.cancel()
        await asyncio.gather(asking, stopping, return_exceptions=True)


def found(error: BaseException, kind: type[BaseException]) -> bool:
    """Whether an error is of this kind, or is a group that holds one."""
    if isinstance(error, BaseExceptionGroup):
        return any(found(inner, kind) for inner in error.exceptions)
    return isinstance(error, kind)
