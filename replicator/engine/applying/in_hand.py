"""What one worker of a page has in hand: a job, and behind one that its target took the next one.

A worker may go on to the next job without waking up for it, as long as nothing but the next job asks for it. Invariant:
a job is in one place, which is here, among the jobs of the page, or among what waits for its cache actions.
"""

from __future__ import annotations

from collections.abc import Callable

from replicator.domain.coalescing import Run
from replicator.engine.applying.context import Written
from replicator.engine.applying.jobs import Job
from replicator.engine.applying.page import Page
from replicator.engine.probing import NEVER, Trial


class InHand:
    """One worker's job, and when its try began."""

    __slots__ = ("_fresh", "_is_held", "_page", "_time", "_trial", "began", "is_called", "job")

    def __init__(self, page: Page, trial: Trial, is_held: Callable[[], bool], time: Callable[[], float]) -> None:
        """`is_held`: whether nothing new may be begun without asking further; `time`: of the loop."""
        self._page = page
        self._fresh = page.jobs.fresh
        self._trial = trial
        self._is_held = is_held
        self._time = time
        self.job: Job | None = None
        """None behind one that was taken."""
        self.began = 0.0
        self.is_called = False
        """Whether this worker is the one that was called for cache actions."""

    def taken(self, written: Written) -> Run | None:
        """The job's target took it; it waits for its cache actions. Returns what may be begun at once, if anything.

        Nothing may where no worker carries out such actions, or is called to: then that is for this worker to do.
        """
        page, job = self._page, self.job
        assert job is not None, "one was begun"
        page.written.append((job, written, self.began))
        self.job = None
        self._trial.began = NEVER
        fresh = self._fresh
        if not page.completes and not page.is_called:
            page.is_called = self.is_called = True
            return None
        if not fresh or self._is_held():
            return None
        then = fresh[0].wanted
        return then if type(then) is Run else None  # asked for every record

    def begin(self) -> None:
        """Take the next job, which was not tried yet."""
        self.job = self._page.jobs.next()
        self.began = self._trial.began = self._time()
