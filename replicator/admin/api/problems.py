"""Errors as problem documents (RFC 9457): one sentence, and the exit code that the command would have."""

from __future__ import annotations

from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from replicator.domain.errors import EXIT_UNREACHABLE, EXIT_USAGE, EXIT_WRONG_WORLD
from replicator.operations.conflict_entries import EntryUnknown
from replicator.operations.errors import NotThere

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicator.domain.errors import ReplicatorError

_BY_EXIT_CODE = {
    EXIT_USAGE: HTTPStatus.BAD_REQUEST,
    EXIT_WRONG_WORLD: HTTPStatus.CONFLICT,
    EXIT_UNREACHABLE: HTTPStatus.SERVICE_UNAVAILABLE,
}


class Problem(Exception):
    """A request that is answered by an error; `detail` is a sentence."""

    def __init__(self, status: HTTPStatus, detail: str, **headers: str) -> None:
        super().__init__(detail)
        self.answer = Answer(status, detail, headers={name.replace("_", "-"): text for name, text in headers.items()})


@dataclass(frozen=True, slots=True)
class Answer:
    """An error as it is sent."""

    status: HTTPStatus
    detail: str
    exit_code: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def document(self) -> dict[str, Any]:
        """The problem document."""
        known = {"type": "about:blank", "title": self.status.phrase, "status": self.status.value, "detail": self.detail}
        return known if self.exit_code is None else {**known, "exit_code": self.exit_code}


def answer_of(error: ReplicatorError) -> Answer:
    """How an error of an operation is answered."""
    if isinstance(error, EntryUnknown | NotThere):
        return Answer(HTTPStatus.NOT_FOUND, error.sentence, error.exit_code)
    status = _BY_EXIT_CODE.get(error.exit_code, HTTPStatus.INTERNAL_SERVER_ERROR)
    return Answer(status, error.sentence, error.exit_code)
