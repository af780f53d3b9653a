"""Events as bytes, in calls that a service takes: by number and by size.

An event that is longer than its service takes is refused by itself, before anything is sent; or its data is stored
first, and a reference to it is sent. Invariant: what an event refers to is durable before the event is sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Protocol

from msgspec import Struct

from replicator.domain.errors import LeaseLost, PoisonRecord, ReplicatorError
from replicator.domain.item_events import ItemEvent
from replicator.ports.targets import Fence


class Encoded(Struct, frozen=True):
    """An event with its bytes, and its place in the batch that it came in."""

    place: int
    event: ItemEvent
    body: bytes


class Objects(Protocol):
    """Where the data of events goes that are too long. `above`: bytes of an event at most; None: what is taken."""

    @property
    def above(self) -> int | None:
        """See above."""

    async def store(self, event: ItemEvent) -> ItemEvent:
        """Return the event with a reference to its data, which is durable there."""


class Batch:
    """What became of each event of a batch: nothing is durable that did not answer."""

    def __init__(self, events: Sequence[ItemEvent], fences: Sequence[Fence]) -> None:
        """Nothing is encoded yet."""
        self._fences = fences
        self.answers: list[ReplicatorError | None] = [None] * len(events)
        self.encoded: list[Encoded] = []

    @classmethod
    async def of(  # noqa: PLR0913 - what a call for several events takes
        cls,
        events: Sequence[ItemEvent],
        fences: Sequence[Fence],
        longest: int,
        what: str,
        *,
        ending: bytes = b"",
        objects: Objects | None = None,
    ) -> Batch:
        """Encode events. `longest`: bytes of one event that the service takes; `ending`: what follows each.

        The data of what is too long goes to `objects` first; without them it is refused.
        """
        batch = cls(events, fences)
        most = longest if objects is None or objects.above is None else min(longest, objects.above)
        encoded = {place: _encoded(place, event, ending) for place, event in enumerate(events)}
        long = [each for each in encoded.values() if len(each.body) > most]
        if objects is not None:
            await asyncio.gather(*(batch._stored(each, ending, objects, encoded) for each in long))
        for each in encoded.values():
            if len(each.body) <= longest:
                batch.encoded.append(each)
            else:
                batch.answers[each.place] = PoisonRecord(
                    f"The event has {len(each.body):,} bytes, and {what} takes {longest:,} at most.",
                    advice="Let its events show fewer attributes (`transform`) or set `oversize`; this one is to be"
                    " dropped, or sent again from its kept form once that is done.",
                )
        return batch

    async def _stored(self, each: Encoded, ending: bytes, objects: Objects, encoded: dict[int, Encoded]) -> None:
        try:
            event = each.event if each.event.dataref else await objects.store(each.event)
        except ReplicatorError as error:
            self.answers[each.place] = error
            del encoded[each.place]
        else:
            encoded[each.place] = _encoded(each.place, event, ending)

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

    def standing(self, part: Sequence[Encoded]) -> list[Encoded]:
        """Those of a part that may still be sent; the others get why not."""
        left = []
        for each in part:
            try:
                if self._fences:
                    self._fences[each.place].check()
            except LeaseLost as error:
                self.answers[each.place] = error
            else:
                left.append(each)
        return left

    def failed(self, part: Sequence[Encoded], error: ReplicatorError) -> None:
        """A call for some events failed as a whole; each gets an error of its own."""
        for each in part:
            self.answers[each.place] = type(error)(error.message, advice=error.advice)


def _encoded(place: int, event: ItemEvent, ending: bytes) -> Encoded:
    return Encoded(place, event, event.cloud_event + ending)
