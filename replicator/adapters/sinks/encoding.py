"""Events as bytes, in calls that a service takes: by number and by size.

An event that is longer than its service takes is refused by itself, before anything is sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from replicator.domain.errors import PoisonRecord, ReplicatorError
from replicator.domain.item_events import ItemEvent


@dataclass(frozen=True, slots=True)
class Encoded:
    """An event with its bytes, and its place in the batch that it came in."""

    place: int
    event: ItemEvent
    body: bytes


class Batch:
    """What became of each event of a batch: nothing is durable that did not answer."""

    def __init__(self, events: Sequence[ItemEvent], longest: int, what: str, *, ending: bytes = b"") -> None:
        """`longest`: bytes of one event that the service takes; `ending`: what follows each."""
        self.answers: list[ReplicatorError | None] = [None] * len(events)
        self.encoded: list[Encoded] = []
        for place, event in enumerate(events):
            body = event.cloud_event + ending
            if len(body) <= longest:
                self.encoded.append(Encoded(place, event, body))
            else:
                self.answers[place] = PoisonRecord(
                    f"The event has {len(body):,} bytes, and {what} takes {longest:,} at most.",
                    advice="Let its events show fewer attributes (`transform`); this one is to be dropped.",
                )

    def calls(self, most_bytes: int) -> Iterator[Sequence[Encoded]]:
        """The events in parts of at most so many bytes, in their order."""
        part: list[Encoded] = []
        size = 0
        for each in self.encoded:
            if part and size + len(each.body) > most_bytes:
                yield part
                part, size = [], 0
            part.append(each)
            size += len(each.body)
        if part:
            yield part

    def failed(self, part: Sequence[Encoded], error: ReplicatorError) -> None:
        """A call for some events failed as a whole; each gets an error of its own."""
        for each in part:
            self.answers[each.place] = type(error)(error.message, advice=error.advice)
