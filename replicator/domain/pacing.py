"""How many requests may be in flight to one table, and whether a throttle is a key's own or the table's.

Additive increase, multiplicative decrease: a limit grows while what it lets pass is taken, and is halved when most of
what was answered lately was throttled. Invariant: it stays between 1 and its ceiling, and falls at most once per round
of requests in flight, so one burst costs one half. A throttled partition makes a minority: it slows its own keys down,
each by its backoff, and not the limit.
"""

from __future__ import annotations

_FIRST = 64
"""A limit begins here, or at its ceiling if that is lower."""

_LATELY = 100
"""How many answers decide whether a table throttles."""

MOSTLY = _LATELY // 2
"""More throttles than this among them are most of them."""

_ROUNDS_TO_CEILING = 32
"""In so many rounds of requests that are all taken a limit grows by the whole ceiling."""

_SILENT_SECONDS = 2.0
"""A table that throttles, and took nothing for so long, throttles as a whole."""

_HANGING_SECONDS = 1.0
"""A table that was sent nothing and answered nothing for so long may be back, whatever still hangs there."""

_ALL = (1 << _LATELY) - 1


class AdaptiveLimit:
    """The limit of one kind of requests to one table."""

    __slots__ = (
        "_begun",
        "_ceiling",
        "_fell_at",
        "_full_at",
        "_lately",
        "_limit",
        "_step",
        "allowed",
        "in_flight",
        "throttles",
    )

    def __init__(self, ceiling: int) -> None:
        self._ceiling = ceiling
        self._limit = float(min(_FIRST, ceiling))
        self.allowed = int(self._limit)
        """Requests in flight at most."""
        self._step = max(1.0, ceiling / _ROUNDS_TO_CEILING)
        self._lately = 0
        self._begun = 0
        self._fell_at = 0
        self._full_at = -ceiling
        self.in_flight = 0
        self.throttles = 0
        """How many requests were throttled so far."""

    @property
    def has_room(self) -> bool:
        """Whether another request may begin."""
        return self.in_flight < self.allowed

    @property
    def throttled_lately(self) -> int:
        """How many of the last hundred answers were throttles."""
        return self._lately.bit_count()

    def begin(self) -> int:
        """A request begins; returns its number, by which it ends."""
        self.in_flight += 1
        self._begun += 1
        if self.in_flight >= self.allowed:
            self._full_at = self._begun
        return self._begun

    def taken(self) -> None:
        """A request was answered by the table, whatever the answer; a limit that was not reached lately stays."""
        self._lately = (self._lately << 1) & _ALL
        if self._limit < self._ceiling and self._begun - self._full_at < self._limit:
            self._limit = min(self._ceiling, self._limit + min(self._step, self._limit) / self._limit)
            self.allowed = int(self._limit)
        self.in_flight -= 1

    def throttled(self, number: int) -> None:
        """A request was throttled; what began before the limit last fell says nothing about the lower one."""
        self._lately = (self._lately << 1 | 1) & _ALL
        self.throttles += 1
        if number > self._fell_at and self._lately.bit_count() * 2 > _LATELY:
            self._limit = max(1.0, self._limit / 2)
            self.allowed = int(self._limit)
            self._fell_at = self._begun
        self.in_flight -= 1

    def unanswered(self) -> None:
        """A request ended without an answer, which tells nothing about throttling."""
        self.in_flight -= 1


class Pace:
    """One table as one process writes it: a limit for single requests and one for transactions, within one ceiling."""

    __slots__ = ("_answered_at", "_seen_at", "ceiling", "singles", "transactions")

    def __init__(self, ceiling: int, now: float) -> None:
        """`now`: monotonic seconds, here and below."""
        self.ceiling = ceiling
        self.singles = AdaptiveLimit(ceiling)
        self.transactions = AdaptiveLimit(ceiling)
        self._answered_at = now
        self._seen_at = now

    @property
    def in_flight(self) -> int:
        """Requests of both kinds."""
        return self.singles.in_flight + self.transactions.in_flight

    @property
    def throttles(self) -> int:
        """Throttled requests of both kinds so far."""
        return self.singles.throttles + self.transactions.throttles

    def may_begin(self, limit: AdaptiveLimit) -> bool:
        """Whether a request under one of the two limits may begin."""
        return limit.in_flight < limit.allowed and self.singles.in_flight + self.transactions.in_flight < self.ceiling

    def may_follow(self, limit: AdaptiveLimit) -> bool:
        """Whether, behind a request under `limit` that ends, another one may begin, under whichever of the limits."""
        other = self.transactions if limit is self.singles else self.singles
        return limit.in_flight <= limit.allowed and (
            other.in_flight < other.allowed and limit.in_flight + other.in_flight <= self.ceiling
        )

    def follow(self, limit: AdaptiveLimit, then: AdaptiveLimit, now: float) -> int:
        """A request was answered by the table, and another one begins; returns its number."""
        limit.taken()
        self._answered_at = self._seen_at = now
        return then.begin()

    def hangs(self, now: float) -> bool:
        """Whether one request more may begin though there is no room, because those under way seem to hang."""
        return now - self._seen_at >= _HANGING_SECONDS

    def begin(self, limit: AdaptiveLimit, now: float) -> int:
        """A request begins; returns its number, by which it ends."""
        self._seen_at = now
        return limit.begin()

    def taken(self, limit: AdaptiveLimit, now: float) -> None:
        """A request was answered by the table."""
        limit.taken()
        self._answered_at = self._seen_at = now

    def throttled(self, limit: AdaptiveLimit, number: int, now: float) -> bool:
        """A request was throttled; whether that is a matter of its key, because the table takes others."""
        limit.throttled(number)
        self._seen_at = now
        return now - self._answered_at < _SILENT_SECONDS
