"""The errors of the program: each says what happened, what becomes of the work, and what an operator can do.

Invariant: every exception that crosses a module boundary derives from `ReplicatorError`. The class decides the
disposition, so no caller has to know which client raised it. Messages never carry item values; keys may appear.
"""

from __future__ import annotations

import enum


class Disposition(enum.Enum):
    """What the engine does with the unit of work that raised."""

    RETRY = "retry"  # the same request again, later
    PARK = "park"  # this key cannot be applied as it is
    RELINQUISH = "relinquish"  # give the shard up, quietly
    STOP = "stop"  # nothing can go on until an operator acts


EXIT_STOPPED = 0
EXIT_FAULT = 1
EXIT_USAGE = 2
EXIT_UNREACHABLE = 69
EXIT_DRAIN_TIMED_OUT = 75
EXIT_WRONG_WORLD = 78

DEBUG_VARIABLE = "REPLICATOR_DEBUG"
"""The environment variable that shows where a fault came from."""


class ReplicatorError(Exception):
    """Something went wrong."""

    disposition = Disposition.STOP
    advice = "Read the message; if it does not say enough, report it as a bug."
    meanwhile = ""
    """What a worker does about it without being asked, as a sentence; a command that ends does nothing more."""
    exit_code = EXIT_FAULT

    def __init__(self, message: str, *, advice: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if advice is not None:
            self.meanwhile = self.meanwhile if advice == self.advice else ""
            self.advice = advice

    @property
    def sentence(self) -> str:
        """What happened and what to do, in one line for a terminal."""
        return _joined(self.message, self.advice)

    @property
    def worker_advice(self) -> str:
        """What to do, and what the worker does meanwhile."""
        return f"{self.advice} {self.meanwhile}".strip()

    @property
    def worker_sentence(self) -> str:
        """The same behind what happened, in one line."""
        return _joined(self.message, self.worker_advice)


def _joined(message: str, advice: str) -> str:
    """Two sentences; what a service says often ends without a full stop."""
    stop = "." if advice and message[-1:].isalnum() else ""
    return f"{message}{stop} {advice}".strip()


class ConfigurationInvalid(ReplicatorError):
    """The configuration cannot be used as it is written."""

    advice = "Correct the file; `replicator check --offline` validates it without touching the network."
    exit_code = EXIT_WRONG_WORLD


class WorldMismatch(ReplicatorError):
    """A table, stream, side table or cache is not what the configuration says."""

    advice = "`replicator check` lists every check and what to do about it."
    exit_code = EXIT_WRONG_WORLD


class NewerLayout(WorldMismatch):
    """Rows of ours were written by a newer program, in a layout that this one does not know.

    A process that meets them among those of its group ends: what it cannot read it must not write beside.
    """

    advice = "Upgrade this program to the version of its newest worker; the way back is in docs/upgrading.md."

    @classmethod
    def of(cls, row: str, where: str, *, layout: int, known: int) -> NewerLayout:
        """What is wrong with a row, by its name, in a table."""
        return cls(
            f"The {where} holds rows of a newer replicator: {row} is of layout {layout}, and this program knows layout"
            f" {known}."
        )


class SchemaMismatch(WorldMismatch):
    """A table's key is not the key of the items that are written to it."""

    advice = "Create the replica with the key of its source; a key schema cannot be changed."


class StreamUnusable(WorldMismatch):
    """A table's stream is missing, or shows too little."""

    advice = "Enable a stream with view type NEW_AND_OLD_IMAGES."


class NotDynamoDB(WorldMismatch):
    """An endpoint answers, but not as DynamoDB does."""

    advice = "Correct the endpoint of the region."


class TableReplaced(WorldMismatch):
    """A table is another one than the one that a rule wrote before."""

    advice = "Run `replicator rules accept`, then `replicator repair`, which copies what it lacks."


class Unreachable(ReplicatorError):
    """A service did not answer."""

    disposition = Disposition.RETRY
    advice = "Check the endpoint, the network and the service's health."
    meanwhile = "The work continues by itself when it answers."
    exit_code = EXIT_UNREACHABLE


class Throttled(ReplicatorError):
    """A service asked for fewer requests."""

    disposition = Disposition.RETRY
    advice = "Raise the capacity of the table or lower the load."
    meanwhile = "The request is repeated with backoff."
    exit_code = EXIT_UNREACHABLE


class KeyThrottled(Throttled):
    """A service asked for fewer requests to the partition of one key, while it takes those of others."""

    advice = "Spread the writes of this key's partition, or lower their rate; more capacity of the table may not help."
    meanwhile = "The key waits with a backoff of its own; others go on."


class AccessRefused(ReplicatorError):
    """A service refused the credentials or the permission."""

    disposition = Disposition.RETRY
    advice = "Grant the action named, or correct profile, role_arn or external_id of the region."
    meanwhile = "The worker retries."
    exit_code = EXIT_WRONG_WORLD


class KeyRefused(AccessRefused):
    """The key that encrypts something may not be used, whatever is granted on what it encrypts."""

    advice = (
        "Grant kms:Decrypt on the key to the identity of the region, in its policy and in the key's own;"
        " `replicator check` names the key."
    )


class TableMissing(ReplicatorError):
    """A table that is needed does not exist."""

    disposition = Disposition.RETRY
    advice = "Create it (`replicator init` makes coordination and side tables), or correct its name in the rule."
    exit_code = EXIT_WRONG_WORLD


class SinkMissing(ReplicatorError):
    """A queue, topic, bus or stream that events go to does not exist."""

    disposition = Disposition.RETRY
    advice = "Create it, or correct its name in the rule's events."
    meanwhile = "It is tried again; nothing is skipped."
    exit_code = EXIT_WRONG_WORLD


class SinkGone(ReplicatorError):
    """A receiver of events says that it wants no more."""

    disposition = Disposition.RETRY
    advice = "Correct its address, or remove it from the rule's events."
    meanwhile = "Nothing is sent for a while, then the worker retries."
    exit_code = EXIT_WRONG_WORLD


class PoisonRecord(ReplicatorError):
    """The replica refuses this item for good."""

    disposition = Disposition.PARK
    advice = "Correct the item at the source, or the replica's schema."
    meanwhile = "The worker retries until one of them fits."


class UnstampedItem(ReplicatorError):
    """An item that replicator did not write is in the way and the rule is set to stop."""

    disposition = Disposition.PARK
    advice = "Remove the item from the replica, or set `unstamped: adopt` for the rule."


class MalformedRecord(ReplicatorError):
    """A stream record cannot be understood."""

    disposition = Disposition.PARK
    advice = (
        "Check that nothing but the database writes to the stream, that its view type is NEW_AND_OLD_IMAGES, and that"
        " the endpoint is a real one."
    )


class LeaseLost(ReplicatorError):
    """The lease on this shard is no longer ours."""

    disposition = Disposition.RELINQUISH
    advice = "Nothing to do: another worker owns the shard, or this one claims it again."


class IteratorExpired(ReplicatorError):
    """A shard iterator outlived its fifteen minutes."""

    disposition = Disposition.RETRY
    advice = "Nothing to do: a new iterator is derived from the last position read."


class RecordsTrimmed(ReplicatorError):
    """Records left the stream's retention before they were read."""

    advice = (
        "Run `replicator repair`, then `replicator gaps acknowledge`; or set `on_gap: resync`, which does both, to go"
        " on from the oldest record left."
    )


class ShardGone(RecordsTrimmed):
    """A shard vanished from the stream before it was read to its end."""
