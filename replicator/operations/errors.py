"""Why an operation was not carried out."""

from __future__ import annotations

from replicator.domain.errors import EXIT_USAGE, ReplicatorError, WorldMismatch


class NotConfirmed(ReplicatorError):
    """The operator did not say yes."""

    exit_code = EXIT_USAGE


class RequestRefused(ReplicatorError):
    """What was asked for makes no sense here."""

    exit_code = EXIT_USAGE


class NotThere(RequestRefused):
    """What was named is not there."""


class ShardBusy(WorldMismatch):
    """A shard's row changes between each look at it and the write after it."""

    advice = "Stop every daemon of the group, then run this command again."
