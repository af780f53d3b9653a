"""Versions: what orders two writes to one item.

Invariant: versions are fixed-width ASCII, so that byte order, DynamoDB's `<` on strings and Lua's `<` all agree with
the order of the numbers inside.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache

from replicator.domain.errors import WorldMismatch
from replicator.domain.identifiers import SequenceNumber

STAMP = "_rep"
"""Name of the attribute that carries an item's version on a replica."""

RESERVED_PREFIX = "aws:rep:"
"""Attributes of the 2017 Global Tables; they describe another replication and are never copied."""

EPOCH_DIGITS = 3
GENERATION_DIGITS = 13
SEQUENCE_DIGITS = 40
ORDERED_WIDTH = EPOCH_DIGITS + GENERATION_DIGITS + SEQUENCE_DIGITS
UNSTAMPED = "0" * ORDERED_WIDTH
"""The version that caches give an item without a stamp: below every real one."""

MAX_EPOCH = 10**EPOCH_DIGITS - 1


def generation_of(stream_label: str) -> int:
    """Milliseconds since 1970 of a stream's creation, from its label (AWS: ISO time, unique per table and rising)."""
    try:
        created = datetime.fromisoformat(stream_label)
    except ValueError:
        created = None
    if created is None:
        raise WorldMismatch(
            f"The stream label {stream_label!r} is not an ISO time, so versions of two streams could not be compared.",
            advice="Use an endpoint whose stream labels are creation times, as on AWS.",
        )
    if created.tzinfo is None:
        created = created.replace(tzinfo=UTC)
    delta = created - datetime.fromtimestamp(0, UTC)
    milliseconds = (delta.days * 86_400 + delta.seconds) * 1000 + delta.microseconds // 1000
    if not 0 <= milliseconds < 10**GENERATION_DIGITS:
        raise WorldMismatch(f"The stream label {stream_label!r} is outside the range of years that a version can hold.")
    return milliseconds


def ordered_version(epoch: int, generation: int, sequence: int) -> str:
    """The version of a write in mode `ordered`: epoch, stream generation, sequence number; 56 digits.

    Source: `docs/protocol.md`, Versions. Raises ValueError when a part does not fit its field.
    """
    version = f"{_of_stream(epoch, generation)}{sequence:0{SEQUENCE_DIGITS}d}"
    if len(version) != ORDERED_WIDTH or sequence < 0:
        raise ValueError(f"sequence {sequence} does not fit a version")
    return version


def version_of(epoch: int, generation: int, sequence: SequenceNumber) -> str:
    """The same of a sequence number as the source wrote it, which `sequence_number` has let pass."""
    return f"{_of_stream(epoch, generation)}{sequence:0>{SEQUENCE_DIGITS}}"


@lru_cache(maxsize=1024)
def _of_stream(epoch: int, generation: int) -> str:
    """What all versions of a stream begin with."""
    prefix = f"{epoch:0{EPOCH_DIGITS}d}{generation:0{GENERATION_DIGITS}d}"
    if len(prefix) != EPOCH_DIGITS + GENERATION_DIGITS or min(epoch, generation) < 0:
        raise ValueError(f"epoch {epoch} or generation {generation} does not fit a version")
    return prefix


def is_ordered_version(text: str) -> bool:
    """Whether a stamp is a version of mode `ordered`."""
    return len(text) == ORDERED_WIDTH and text.isascii() and text.isdecimal()


def sequence_of(version: str) -> int:
    """The sequence number in a version of mode `ordered`."""
    return int(version[-SEQUENCE_DIGITS:])


def generation_in(version: str) -> int:
    """The stream generation in a version of mode `ordered`, or of a row of a mesh."""
    return int(version[EPOCH_DIGITS : EPOCH_DIGITS + GENERATION_DIGITS])


TIED = 1000
"""Sequence numbers of one millisecond, where the time of a change in microseconds is its sequence number."""


def is_tied(one: str, two: str) -> bool:
    """Whether two versions of mode `ordered` are of one millisecond of one stream."""
    return one[:-SEQUENCE_DIGITS] == two[:-SEQUENCE_DIGITS] and sequence_of(one) // TIED == sequence_of(two) // TIED


def at_sequence(version: str, sequence: int) -> str:
    """A version of mode `ordered` with another sequence number of the same stream."""
    return f"{version[:-SEQUENCE_DIGITS]}{sequence:0{SEQUENCE_DIGITS}d}"
