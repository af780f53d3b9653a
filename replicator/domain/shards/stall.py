"""Why a target does not progress on a shard that this worker reads. No calls: what the pipeline sees in, a reason out.

Invariant: a pipeline that was idle for too long always has a reason. A shard without records progresses by being read.
"""

from __future__ import annotations

from msgspec import Struct

from replicator.domain.errors import ReplicatorError


class Stall(Struct, frozen=True):
    """Why nothing progresses, and what can be done about it."""

    reason: str
    remedy: str


class Write(Struct, frozen=True):
    """Records are in hand: the target's name, what it asks, what waits for it, and what keeps it from applying them."""

    target: str
    asks: str
    holds_back: str
    trouble: ReplicatorError | None


class Sign(Struct, frozen=True):
    """What a pipeline sees of itself.

    `write`: set while records are in hand. `reads`: records are awaited. `hungry`: reading waits for memory.
    `closed`: the loss that it waits behind. `reading`, `error`: what last failed, in reading and in the whole.
    """

    idle_seconds: float
    write: Write | None = None
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
    if sign.write is not None:
        return _unapplied(sign.write)
    if sign.reads and sign.hungry:
        return _HUNGRY
    error = sign.closed or (sign.reading if sign.reads else None) or sign.error
    if error is not None:
        return _because(error)
    return _SILENT_STREAM if sign.reads else _SILENT_TABLE


def _unapplied(write: Write) -> Stall:
    if write.trouble is not None:
        return _because(write.trouble)
    return Stall(
        f"Records were read and a write at {write.target} is not answered; {write.holds_back}, waits for it.",
        f"Check {write.asks}.",
    )


def _because(error: ReplicatorError) -> Stall:
    return Stall(error.message, error.worker_advice)
