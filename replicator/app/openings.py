"""What a process has open: clients of regions, caches and sinks, and more when a changed configuration uses some.

Invariant: what was opened stays open as long as the process lives, under the settings that it was opened with; what was
opened for a configuration that is refused then is closed again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from msgspec import Struct

from replicator.adapters.clients import open_caches, open_places
from replicator.adapters.sinks.opening import SinkId, open_sinks
from replicator.app.bounds import STREAM_CONNECTIONS, caches_of, connections_of, regions_of

if TYPE_CHECKING:
    from replicator.adapters.aws.clients import Fallback, Place
    from replicator.adapters.redis.cluster import CacheClient
    from replicator.ports.clock import Clock
    from replicator.ports.targets import Sink
    from replicator.settings import Settings


class More(Struct):
    """What was opened beside what was open."""

    places: dict[str, Place]
    caches: dict[str, CacheClient]
    sinks: dict[SinkId, Sink]
    is_kept: bool = False

    def keep(self) -> None:
        """It stays open."""
        self.is_kept = True


class Openings:
    """Clients by region, by cache, and by sink; all three are the same objects for the life of the process."""

    def __init__(
        self, stack: AsyncExitStack, clock: Clock, lean: Fallback | None, note: Callable[[Place], None]
    ) -> None:
        """`stack`: closes everything. `note`: hears of every region that is opened."""
        self.places: dict[str, Place] = {}
        self.caches: dict[str, CacheClient] = {}
        self.sinks: dict[SinkId, Sink] = {}
        self._stack, self._clock, self._lean, self._note = stack, clock, lean, note

    @asynccontextmanager
    async def beyond(self, settings: Settings) -> AsyncIterator[More]:
        """Open what these settings use and is not open, to be kept or closed at the end of the context."""
        async with AsyncExitStack() as stack:
            more = More({}, {}, {})
            more.places |= await stack.enter_async_context(
                open_places(
                    settings,
                    regions_of(settings) - self.places.keys(),
                    connections_of(settings),
                    stream_connections=STREAM_CONNECTIONS,
                    lean=self._lean,
                )
            )
            names = caches_of(settings) - self.caches.keys()
            more.caches |= await stack.enter_async_context(open_caches(settings, names))
            self.places |= more.places  # what looks at the world finds them there
            self.caches |= more.caches
            try:
                known = {rule for rule, _, _ in self.sinks}
                rules = [rule for rule in settings.rules if rule.events and rule.name not in known]
                fresh = settings.model_copy(update={"rules": rules})
                more.sinks |= await stack.enter_async_context(open_sinks(fresh, self.places, self.caches, self._clock))
                yield more
            finally:
                if not more.is_kept:
                    for name in more.places:
                        del self.places[name]
                    for name in more.caches:
                        del self.caches[name]
            if more.is_kept:
                self.sinks |= more.sinks
                for place in more.places.values():
                    self._note(place)
                self._stack.push_async_callback(stack.pop_all().aclose)

    def forget(self, rule: str) -> None:
        """The sinks of a rule that is gone are not those of another one of its name."""
        for name in [name for name in self.sinks if name[0] == rule]:
            del self.sinks[name]
