"""A worker's life: heartbeats, the deadline that fences its sends, and which leases have expired.

Invariant: nothing is sent after the deadline, and the deadline lies before the moment at which any other worker may
take a shard over. Wall clocks are never compared between machines: an owner is expired for an observer when its counter
did not move for the lease time on the observer's own clock.
"""

from __future__ import annotations

from replicator.domain.errors import LeaseLost
from replicator.domain.identifiers import RuleName, WorkerId
from replicator.engine.waiting import Flag
from replicator.ports.clock import Clock

SHARE_OF_LEASE = 0.8
"""The deadline lies this share of the lease after the heartbeat was sent; the rest is for requests on the wire."""


class Session:
    """One worker id from its first heartbeat until it ends or misses its deadline; then a new session begins."""

    def __init__(self, worker: WorkerId, clock: Clock, lease_seconds: float) -> None:
        self.worker = worker
        self.begun = Flag()
        self.over = Flag()
        self._clock = clock
        self._share = lease_seconds * SHARE_OF_LEASE
        self._deadline: float | None = None

    def extend(self, sent_at: float) -> None:
        """A heartbeat sent at `sent_at` (monotonic) was stored; too late, it changes nothing."""
        self.expire_if_due()
        if not self.over.is_set():
            self._deadline = sent_at + self._share
            self.begun.set()

    def expire_if_due(self) -> None:
        """End the session for good when its deadline has passed."""
        if self._deadline is not None and self._clock.monotonic() >= self._deadline:
            self.over.set()

    def check(self) -> None:
        """Raise `LeaseLost` before the first heartbeat and behind the deadline; once behind it, always."""
        deadline = self._deadline
        if deadline is None or self._clock.monotonic() >= deadline or self.over.is_set():
            self.expire_if_due()
            raise LeaseLost(f"Worker {self.worker} has no valid heartbeat.")

    @property
    def seconds_left(self) -> float:
        """Time until the deadline; endless before the first heartbeat, not positive when it has passed."""
        return float("inf") if self._deadline is None else self._deadline - self._clock.monotonic()


class ShardFence:
    """The fence of one shard: its session's deadline, and what the coordination table said about this lease."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._revoked = False

    @property
    def revoked(self) -> bool:
        """Whether the lease is known to be another worker's."""
        return self._revoked

    def revoke(self) -> None:
        """The lease went to another worker."""
        self._revoked = True

    def check(self) -> None:
        """Raise `LeaseLost` when nothing may be sent any more."""
        if self._revoked:
            raise LeaseLost("The lease on this shard went to another worker.")
        self._session.check()


class DriveFence:
    """The fence of a rule that functions drive: what its row said last, and when that was asked."""

    def __init__(self, rule: RuleName, clock: Clock, lease_seconds: float) -> None:
        self._rule = rule
        self._clock = clock
        self._share = lease_seconds * SHARE_OF_LEASE
        self._deadline = float("-inf")

    def extend(self, asked_at: float) -> None:
        """A look at `asked_at` (monotonic) showed that functions drive the rule."""
        self._deadline = asked_at + self._share

    def revoke(self) -> None:
        """A look showed that they do not."""
        self._deadline = float("-inf")

    def check(self) -> None:
        """Raise `LeaseLost` when nothing may be sent any more."""
        if self._clock.monotonic() >= self._deadline:
            raise LeaseLost(f"Rule {self._rule} is not known to be driven by functions any more.")
