"""When a cache that fails is left alone for a while."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Breaker:
    """Closed until `failures` calls in a row failed; then one call at a time tries again every `rest_seconds`.

    Readers share it: threads may race for the trial, which costs a second trial and nothing else.
    """

    failures: int
    rest_seconds: float
    _failed: int = 0
    _until: float = 0.0

    def permits(self, now: float) -> bool:
        """Whether a call may be tried; the one that may holds back others until it is known how it went."""
        if self._failed < self.failures:
            return True
        if now < self._until:
            return False
        self._until = now + self.rest_seconds
        return True

    def succeeded(self) -> None:
        """The cache answered."""
        self._failed = 0

    def failed(self, now: float) -> None:
        """The cache did not answer."""
        self._failed += 1
        self._until = now + self.rest_seconds
