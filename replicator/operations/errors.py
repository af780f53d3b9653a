"""Why an operation was not carried out."""

from __future__ import annotations

from replicator.domain.errors import EXIT_USAGE, ReplicatorError


class NotConfirmed(ReplicatorError):
    """Nobody said yes."""

    exit_code = EXIT_USAGE


class RequestRefused(ReplicatorError):
    """What was asked for makes no sense here."""

    exit_code = EXIT_USAGE
