"""A deed of an operator as it is kept: who did what, when, from where, and what came of it."""

from __future__ import annotations

import enum

from msgspec import Struct


class Result(enum.StrEnum):
    """What came of a deed."""

    BEGUN = "begun"  # the worker ended before it could say more, or could not reach the table
    DONE = "done"
    REFUSED = "refused"
    FAILED = "failed"  # something did not answer, so it may have been done in part

    @classmethod
    def named(cls, text: str) -> Result:
        """A stored result; one that is not known, of a newer program, is one that began."""
        return next((each for each in cls if each.value == text), cls.BEGUN)


class Deed(Struct, frozen=True):
    """One deed. `deed_id` sorts by time; `who`: the name of a token; `what`: the operation; `command`: the same typed.

    `origin`: the address that it came from; `at`: seconds since 1970; `reason`: the sentence of a refusal.
    """

    deed_id: str
    who: str
    what: str
    command: str
    origin: str
    at: float
    result: Result = Result.BEGUN
    reason: str = ""
