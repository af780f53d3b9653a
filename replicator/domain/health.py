"""Whether something answers, and when it is tried again while it does not. No calls: outcomes and times in, times out.

Invariant: what does not answer is tried at most two seconds apart, and its first answer ends that for everything that
waits. A failure beside answers is a matter of what was asked, and so is one that only a single key meets: neither keeps
anything else waiting.
"""

from __future__ import annotations

from collections.abc import Hashable

from replicator.domain.errors import Disposition, ReplicatorError, Throttled

PROBE_SECONDS = 2.0
"""What does not answer is tried at most so far apart."""

_FIRST_SECONDS = 0.1
_DOUBLINGS = 5

_ROUNDS_BEFORE_TROUBLE = 3
_SECONDS_BEFORE_TROUBLE = 2.0


def is_silence(error: ReplicatorError) -> bool:
    """Whether an error may be over at any moment, so that it is tried again soon; a throttle asks for the contrary."""
    return error.disposition is Disposition.RETRY and not isinstance(error, Throttled)


class Health:
    """One endpoint, table or cache with all that is asked of it; times are monotonic seconds."""

    __slots__ = ("_answered_at", "_asked_by", "_round_at", "_rounds", "_since", "away", "error")

    def __init__(self) -> None:
        self.away = False
        """Whether several in a row got no answer, and none got one since."""
        self.error: ReplicatorError | None = None
        """What was last met in place of an answer."""
        self._asked_by: Hashable = None
        self._answered_at = float("-inf")
        self._since = self._round_at = float("-inf")
        self._rounds = 0

    def answered(self, now: float) -> bool:
        """An answer came; returns whether something may wait for it."""
        was_away = self.away
        self.away, self.error, self._asked_by, self._rounds = False, None, None, 0
        self._answered_at = now
        return was_away

    def failed(self, asked_by: Hashable, error: ReplicatorError, began: float, now: float) -> bool:
        """A try that began then got no answer; returns whether what asked waits with all others from now on.

        Tries that were under way together are one round.
        """
        if self._answered_at >= began:
            return False
        if self.error is None:
            self._asked_by, self._since = asked_by, now
        elif asked_by != self._asked_by:
            self.away = True
        self.error = error
        if began >= self._round_at:
            self._rounds += 1
            self._round_at = now
        return self.away

    def is_troubled(self, now: float) -> bool:
        """Whether it is away for longer than a moment."""
        lasts = self._rounds >= _ROUNDS_BEFORE_TROUBLE or now - self._since >= _SECONDS_BEFORE_TROUBLE
        return self.away and lasts

    def next_try_in(self, chance: float) -> float:
        """Seconds until the next try, whether or not the last one has ended; `chance`: from 0 to 1, parts processes."""
        whole: float = min(PROBE_SECONDS, _FIRST_SECONDS * 2 ** min(self._rounds, _DOUBLINGS))
        return whole * (0.5 + 0.5 * chance)
