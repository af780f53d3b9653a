"""Facts about the world: what was looked at, its state, and what to do about it."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping

from msgspec import Struct

from replicator.domain.errors import (
    EXIT_STOPPED,
    EXIT_UNREACHABLE,
    EXIT_WRONG_WORLD,
    ReplicatorError,
    SchemaMismatch,
    StreamUnusable,
    WorldMismatch,
)


class Status(enum.Enum):
    """The state of a fact."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


class Fact(Struct, frozen=True):
    """One thing that was looked at.

    `found` and `remedy` are sentences; `exit_code` and `kind` say of what kind its failure is.
    """

    subject: str
    name: str
    status: Status
    found: str = ""
    remedy: str = ""
    exit_code: int = EXIT_STOPPED
    kind: type[ReplicatorError] = WorldMismatch

    @property
    def is_wrong(self) -> bool:
        """Whether it is wrong, and not only unknown because something does not answer."""
        return self.status is Status.FAILED and self.exit_code != EXIT_UNREACHABLE

    @property
    def error(self) -> ReplicatorError:
        """A failure as an error."""
        error = self.kind(self.found, advice=self.remedy)
        error.exit_code = self.exit_code
        return error

    @property
    def sentence(self) -> str:
        """What was found and what to do, in one line."""
        return f"{self.found} {self.remedy}".strip()


_KINDS: Mapping[str, type[ReplicatorError]] = {
    "key schema": SchemaMismatch,
    "stream": StreamUnusable,
    "fan-out": StreamUnusable,
}
"""Kinds of what is wrong, by the names of facts."""


def ok(subject: str, name: str, found: str = "") -> Fact:
    """A fact that is as it should be."""
    return Fact(subject, name, Status.OK, found)


def warning(subject: str, name: str, found: str, remedy: str) -> Fact:
    """A fact that works and may surprise."""
    return Fact(subject, name, Status.WARNING, found, remedy)


def wrong(subject: str, name: str, found: str, remedy: str) -> Fact:
    """A fact that the configuration or the world has wrong."""
    return Fact(subject, name, Status.FAILED, found, remedy, EXIT_WRONG_WORLD, _KINDS.get(name, WorldMismatch))


def skipped(subject: str, name: str, found: str) -> Fact:
    """A fact that could not be looked at because another one failed."""
    return Fact(subject, name, Status.SKIPPED, found)


def failed(subject: str, name: str, error: ReplicatorError) -> Fact:
    """A fact that an error prevents."""
    code = EXIT_UNREACHABLE if error.exit_code == EXIT_UNREACHABLE else EXIT_WRONG_WORLD
    found = f"{error.message.rstrip('. :')}."  # what a client says may end in anything
    return Fact(subject, name, Status.FAILED, found, error.advice, code, type(error))


def exit_code(facts: Iterable[Fact]) -> int:
    """0 when nothing failed, 69 when only unreachable things did, 78 when something is wrong."""
    codes = {fact.exit_code for fact in facts if fact.status is Status.FAILED}
    if not codes:
        return EXIT_STOPPED
    return EXIT_UNREACHABLE if codes == {EXIT_UNREACHABLE} else EXIT_WRONG_WORLD
