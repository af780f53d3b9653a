"""Facts about the world: what was looked at, its state, and what to do about it."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass

from replicator.domain.errors import EXIT_STOPPED, EXIT_UNREACHABLE, EXIT_WRONG_WORLD, ReplicatorError


class Status(enum.Enum):
    """The state of a fact."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that was looked at. `found` and `remedy` are sentences; `exit_code` is the kind of its failure."""

    subject: str
    name: str
    status: Status
    found: str = ""
    remedy: str = ""
    exit_code: int = EXIT_STOPPED

    @property
    def sentence(self) -> str:
        """What was found and what to do, in one line."""
        return f"{self.found} {self.remedy}".strip()


def ok(subject: str, name: str, found: str = "") -> Fact:
    """A fact that is as it should be."""
    return Fact(subject, name, Status.OK, found)


def warning(subject: str, name: str, found: str, remedy: str) -> Fact:
    """A fact that works and may surprise."""
    return Fact(subject, name, Status.WARNING, found, remedy)


def wrong(subject: str, name: str, found: str, remedy: str) -> Fact:
    """A fact that the configuration or the world has wrong."""
    return Fact(subject, name, Status.FAILED, found, remedy, EXIT_WRONG_WORLD)


def skipped(subject: str, name: str, found: str) -> Fact:
    """A fact that could not be looked at because another one failed."""
    return Fact(subject, name, Status.SKIPPED, found)


def failed(subject: str, name: str, error: ReplicatorError) -> Fact:
    """A fact that an error prevents."""
    code = EXIT_UNREACHABLE if error.exit_code == EXIT_UNREACHABLE else EXIT_WRONG_WORLD
    found = f"{error.message.rstrip('. :')}."  # what a client says may end in anything
    return Fact(subject, name, Status.FAILED, found, error.advice, code)


def exit_code(facts: Iterable[Fact]) -> int:
    """0 when nothing failed, 69 when only unreachable things did, 78 when something is wrong."""
    codes = {fact.exit_code for fact in facts if fact.status is Status.FAILED}
    if not codes:
        return EXIT_STOPPED
    return EXIT_UNREACHABLE if codes == {EXIT_UNREACHABLE} else EXIT_WRONG_WORLD
