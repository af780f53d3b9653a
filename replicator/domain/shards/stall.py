"""Why a rule does not progress on a shard that this worker reads. No calls: what the pipeline sees in, a reason out.

Invariant: a pipeline that was idle for too long always has a reason. A shard without records progresses by being read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from replicator.domain.errors import ReplicatorError


@dataclass(frozen=True, slots=True)
class Stall:
    """Why nothing progresses, and what can be done about it."""

    reason: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Write:
    """A target that has records in hand: its name, what it asks, what waits for it, and what keeps it from applying."""

    target: str
    asks: str
    holds_back: str
    trouble: ReplicatorError | None


@dataclass(frozen=True, slots=True)
class Sign:
    """What a pipeline sees of itself.

    `writes`: targets, while records are in hand. `reads`: records are awaited. `hungry`: reading waits for memory.
    `closed`: the loss that it waits behind. `reading`, `error`: what last failed, in reading and in the whole.
    """

    idle_seconds: float
    writes: Sequence[Write] = ()
    reads: bool = False
    hungry: bool = False
    closed: ReplicatorError | None = None
    reading: ReplicatorError | None = None
    error: ReplicatorError | None = None


_HUNGRY = Stall(
    "It waits for memory: records of other shards fill the budget of bytes in flight.",
    "See which targets are blocked, or raise the budget.",
)
_SILENT_STREAM = Stall("The stream was asked and does not answer.", "Check the stream's endpoint and the network.")
_SILENT_TABLE = Stall(
    "It is about to begin, and the coordination table or the stream does not answer.",
    "Check their endpoints, the network, and the table for throttling.",
)


def stall_of(sign: Sign, bound_seconds: float) -> Stall | None:
    """Why a pipeline does not progress; None while it was not idle for the bound."""
    if sign.idle_seconds < bound_seconds:
        return None
    if sign.writes:
        return _unapplied(sign.writes)
    if sign.reads and sign.hungry:
        return _HUNGRY
    error = sign.closed or (sign.reading if sign.reads else None) or sign.error
    if error is not None:
        return _because(error)
    return _SILENT_STREAM if sign.reads else _SILENT_TABLE


def _unapplied(writes: Sequence[Write]) -> Stall:
    troubles = [write.trouble for write in writes if write.trouble is not None]
    if troubles:
        return _because(troubles[0])
    names = ", ".join(write.target for write in writes)
    asked = " and ".join(dict.fromkeys(write.asks for write in writes))
    waiting = " and ".join(dict.fromkeys(write.holds_back for write in writes))
    return Stall(
        f"Records were read and a write at {names} is not answered; {waiting}, waits for it.", f"Check {asked}."
    )


def _because(error: ReplicatorError) -> Stall:
    return Stall(error.message, error.worker_advice)
