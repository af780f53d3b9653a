"""A stream of a Redis or Valkey as a sink: one entry an event, with its id beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from replicator.adapters.sinks.encoding import Batch
from replicator.adapters.sinks.oversize import BucketOfData
from replicator.domain.errors import ReplicatorError
from replicator.domain.item_events import EventShape, ItemEvent
from replicator.ports.targets import Fence

_LONGEST_EVENT = 8 * 1024 * 1024
_CALL_BYTES = 4 * 1024 * 1024


class Streams(Protocol):
    """A server that holds streams."""

    async def append(
        self, stream: str, entries: Sequence[Mapping[str, bytes | str]], most: int | None
    ) -> Sequence[ReplicatorError | None]:
        """Add entries in their order, and what became of each; raises what kept all of them from being added."""

    async def holds(self, key: str) -> str:
        """The type of what a key holds: `none` when there is nothing."""


class RedisStreamSink:
    """One stream."""

    most = 256
    at_once = 4

    def __init__(  # noqa: PLR0913, PLR0917 - a composition root fills it once
        self,
        server: Streams,
        stream: str,
        most: int | None,
        shape: EventShape,
        where: str,
        objects: BucketOfData | None = None,
    ) -> None:
        """`most`: about how many entries it keeps; None: all."""
        self.shape = shape
        self.objects = objects
        self._server = server
        self._stream = stream
        self._most = most
        self._where = where

    async def send(self, events: Sequence[ItemEvent], fences: Sequence[Fence] = ()) -> Sequence[ReplicatorError | None]:
        """Add events of different keys; what became of each."""
        batch = await Batch.of(events, fences, _LONGEST_EVENT, self._where, objects=self.objects)
        for asked in batch.calls(_CALL_BYTES):
            part = batch.standing(asked)
            entries: list[Mapping[str, bytes | str]] = [{"id": each.event.id, "event": each.body} for each in part]
            try:
                answers = await self._server.append(self._stream, entries, self._most)
            except ReplicatorError as error:
                batch.failed(part, error)
            else:
                for each, answer in zip(part, answers, strict=True):
                    batch.answers[each.place] = answer
        return batch.answers

    async def held(self) -> str:
        """The type of what its key holds now."""
        return await self._server.holds(self._stream)
