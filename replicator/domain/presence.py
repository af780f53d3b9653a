"""Whether another region of a mesh is there, as its answers say. No clock: every time is an argument.

A region is late when questions to it have had no answer for a moment, and away when they have had none for longer, or
when an operator says so. To either it is owed what it misses, so nothing waits for it; only the words differ. An answer
of any kind ends that: throttling and the refusal of an item are answers. Invariant: silence counts only while something
is asked, so a region that is asked nothing is as present as it was.
"""

from __future__ import annotations

import enum

from msgspec import Struct, field

LATE_SHARE = 0.2
"""The part of `away_after` behind which a region is late: 1 second of 5."""


class Standing(enum.StrEnum):
    """How a region stands."""

    HERE = "here"
    LATE = "late"  # nothing waits for it, and it is not yet called away
    AWAY = "away"


class Reason(enum.StrEnum):
    """Why a region is away."""

    SILENT = "silent"  # it does not answer, or refuses everything
    DECLARED = "declared"  # an operator said so
    OVERDUE = "overdue"  # it missed so much that deletes may be forgotten by now: it must be rebuilt


class Presence(Struct):
    """One region as one process sees it; all times are seconds of a clock that never jumps back."""

    away_after: float
    why: str = ""
    """What kept the last question from being answered."""
    _asked: dict[int, float] = field(default_factory=dict)
    """Questions without an answer yet, and since when."""
    _count: int = 0
    _answered_at: float = float("-inf")
    _silent_since: float | None = None
    _said_no: bool = False
    _held: dict[Reason, float] = field(default_factory=dict)
    """What holds it away whatever it answers, and since when."""

    # -- what happened -------------------------------------------------------------------------------------------------

    def asked(self, now: float) -> int:
        """A question is sent; returns its number."""
        self._count += 1
        self._asked[self._count] = now
        return self._count

    def answered(self, number: int, now: float) -> None:
        """A question was answered: the region is there."""
        self._asked.pop(number, None)
        self._answered_at = max(now, self._answered_at)
        self._silent_since, self._said_no, self.why = None, False, ""

    def failed(self, number: int, why: str, *, said_no: bool = False) -> None:
        """A question failed. `said_no`: not for want of an answer, but for what the region says of all questions."""
        self._unanswered(self._asked.pop(number, self._answered_at))
        self._said_no, self.why = self._said_no or said_no, why

    def given_up(self, number: int, *, silent: bool) -> None:
        """A question was given up by the side that asked. `silent`: it had been sent, and no answer came until then."""
        asked_at = self._asked.pop(number, None)
        if silent and asked_at is not None:
            self._unanswered(asked_at)

    def _unanswered(self, asked_at: float) -> None:
        since = max(asked_at, self._answered_at)
        self._silent_since = since if self._silent_since is None else min(self._silent_since, since)

    def hold(self, reason: Reason, now: float, *, holds: bool) -> None:
        """From now on something else than silence keeps the region away, or does so no longer."""
        if holds:
            self._held.setdefault(reason, now)
        else:
            self._held.pop(reason, None)

    # -- what follows --------------------------------------------------------------------------------------------------

    def standing(self, now: float) -> Standing:
        """How the region stands now."""
        if self._held:
            return Standing.AWAY
        silence = self._silence(now)
        if silence >= self.away_after:
            return Standing.AWAY
        return Standing.LATE if self._said_no or silence >= self.away_after * LATE_SHARE else Standing.HERE

    def reason(self) -> Reason:
        """What keeps it away, the most lasting thing first."""
        return next((each for each in (Reason.OVERDUE, Reason.DECLARED) if each in self._held), Reason.SILENT)

    def is_held(self) -> bool:
        """Whether no answer can end its absence."""
        return bool(self._held)

    def since(self) -> float | None:
        """Since when it is silent or held; None when it is neither."""
        times = [*self._held.values(), *filter(None, [self._silent_from()])]
        return min(times, default=None)

    def changes_in(self, now: float) -> float | None:
        """In how many seconds it stands otherwise if no answer comes until then; None when time changes nothing."""
        since = self._silent_from()
        if since is None or self._held:
            return None
        ends = (since + self.away_after * share - now for share in (LATE_SHARE, 1.0))
        return next((end for end in ends if end > 0), None)

    def _silence(self, now: float) -> float:
        since = self._silent_from()
        return 0.0 if since is None else now - since

    def _silent_from(self) -> float | None:
        """Since when something is asked and nothing is answered."""
        since, asked = self._silent_since, self._asked
        if not asked:
            return since
        # The first that was asked is the one that has waited for longest.
        waiting = max(next(iter(asked.values())), self._answered_at)
        return waiting if since is None else min(since, waiting)
