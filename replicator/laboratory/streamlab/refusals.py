"""What the laboratory refuses: a command that makes no sense, and answers that the service gives as errors."""

from __future__ import annotations

from replicator.domain.errors import ReplicatorError


class Refused(ReplicatorError):
    """The stream laboratory cannot do what it was asked."""

    advice = "GET /_lab/streams shows what there is; docs/laboratory.md explains the commands."


class ServiceError(Exception):
    """An error that the service answers with: its code, its words, its HTTP status."""

    def __init__(self, code: str, said: str, status: int = 400) -> None:
        super().__init__(f"{code}: {said}")
        self.code = code
        self.said = said
        self.status = status
