"""Which shards a stream has: every DescribeStream call of this worker for one stream is made here.

The worker that holds the stream's seat lists it regularly; every other one only asks for the children of shards that it
read to their end, and whether a shard is over. Invariant: progress never goes back. A page is stored when it is there,
a page that fails is asked for again, and nothing that one listing leaves out is taken for gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass
from typing import TypeVar

from replicator.domain.errors import RecordsTrimmed, ReplicatorError, ShardGone, Unreachable
from replicator.domain.identifiers import ShardId
from replicator.domain.progress import END, HORIZON
from replicator.domain.shards.leases import StreamRef, StreamState
from replicator.domain.shards.lineage import Shard, childless
from replicator.engine.discovery.admission import Admission
from replicator.engine.discovery.describe_rate import DescribeBudget
from replicator.engine.discovery.listing import Listing
from replicator.engine.discovery.questions import Questions
from replicator.engine.discovery.seat import SeatHolder
from replicator.engine.limits import Limits
from replicator.engine.membership.members import Members
from replicator.engine.service import Service
from replicator.engine.shard.worker import ShardPorts
from replicator.engine.waiting import Stopped
from replicator.ports.services import ServiceKind, stream_service

_SOON_SECONDS = 1.0
"""Time between two questions for the children of a shard that was read to its end."""
_NEWS_SHARE = 120.0
"""While nothing new is found, questions become rarer: after so long the time between two of them grows beyond that."""
_TICK_SECONDS = 0.01
_LONG_AGO = -1e9
_FEW_PARENTS = 5
"""For so many the children are asked for one by one; for more, the stream is listed."""
_UNFILTERED_SECONDS = 600.0
"""For so long nobody asks for children where that was refused: it may have been about one shard only."""
_CALL_SECONDS = 15.0
_LONGEST_BACKOFF = 5.0
_FAILURES_OF_A_PAGE = 8
"""A page that fails so often in a row is given up, and the listing begins anew."""
_LISTINGS_WITHOUT = 3
"""A shard that so many listings in a row leave out has vanished."""
_PROBES_AT_ONCE = 16
_PROBES_PER_LISTING = 2

Answer = TypeVar("Answer")


@dataclass(slots=True)
class _Parent:
    """A shard that was read to its end and has no known child."""

    asked_at: float = _LONG_AGO


class Discovery:
    """One stream's shards, as one session of a worker finds them. Implements `Ends`."""

    def __init__(  # noqa: PLR0913 - its collaborators, given once
        self,
        ref: StreamRef,
        ports: ShardPorts,
        members: Members,
        budget: DescribeBudget,
        *,
        limits: Limits,
        wake: Callable[[], None],
    ) -> None:
        """`wake` is called when rows were stored."""
        self._ref = ref
        self._ports = ports
        self._members = members
        self._budget = budget
        self._limits = limits
        self._tell_coordinator = wake
        self._service = stream_service(ServiceKind.DISCOVERY, ref)
        self._over = asyncio.Event()
        self._wake = asyncio.Event()
        self._state = StreamState({}, None, {}, at=0.0)
        self._seen_at = _LONG_AGO
        self._graph: dict[ShardId, Shard] = {}
        self._parents: dict[ShardId, _Parent] = {}
        self._admission = Admission()
        self._questions = Questions()
        self._refused_at = _LONG_AGO
        """When the endpoint last could not, or would not, tell a shard's children."""
        self._seat = SeatHolder(ref, ports.coordination, members, limits=limits, clock=ports.clock)
        self._calls = 0
        self._listing: Listing | None = None
        self._listed_at = _LONG_AGO
        self._news_at = _LONG_AGO
        self._began_at: float | None = None
        """While a stream without rows is listed for the first time: when that began. Shards found then are not new."""
        self._misses: dict[ShardId, int] = {}
        self.settling = False
        """Whether everything that is known was read to its end, for some rule."""
        self._alone = False
        self.completed = 0
        """How many whole listings were read."""
        self.gone = False
        """Whether the stream itself was gone when it was last asked."""

    # -- what the coordinator tells and asks -----------------------------------------------------------------------

    @property
    def seated(self) -> bool:
        """Whether this worker lists the stream."""
        return self._seat.held is not None

    @property
    def waits(self) -> bool:
        """Whether shards were seen that could not be stored yet."""
        return self._admission.waits

    @property
    def unstored(self) -> dict[ShardId, tuple[ShardId, ...]]:
        """Shards that were seen and could not be stored yet, with the parents that hold them back."""
        return self._admission.unstored

    def see(self, state: StreamState, ours: Collection[ShardId]) -> None:
        """Take what is stored now, before anything is done about it. `ours`: shards that we read in this session."""
        self._state = state
        self._seen_at = self._ports.clock.monotonic()
        self._graph = {shard_id: row.shard for shard_id, row in state.rows.items()}
        ended = [shard_id for shard_id, row in state.rows.items() if END in row.checkpoints.values()]
        parents = [each for each in childless(self._graph, ended) if self.seated or each in ours]
        if not self._parents.keys() >= set(parents):
            self._news()
        self._parents = {shard_id: self._parents.get(shard_id) or _Parent() for shard_id in parents}

    async def sit(self) -> None:
        """Take the discoverer's seat when no worker has it, or when its owner is dead or does not list."""
        if await self._seat.sit(self._state.seat):
            self._began_at = None if self._state.rows else self._server_time()
            self._news()

    def settle(self, *, settling: bool, alone: bool = False) -> None:
        """Note whether everything that is known was read to its end, so that only listings can show more.

        `alone`: who has the seat does not say what it found, so we look ourselves.
        """
        if (settling and not self.settling) or (alone and not self._alone):
            self._news()
        self.settling = settling
        self._alone = alone

    @property
    def _lists(self) -> bool:
        """Whether this worker finds shards for all."""
        return self.seated or self._alone

    async def leave(self) -> None:
        """End, and let another worker discover."""
        self._over.set()
        self._questions.stop()
        await self._seat.leave()

    def hush(self) -> None:
        """Take back what was told of failures."""
        self._ports.observer.service_recovered(self._service)

    async def is_over(self, shard_id: ShardId) -> bool:
        """Whether the stream says that a shard gets no more records; waits for the answer. Raises `Stopped`.

        A shard that was ever seen closed, or with a child, stays over; everything else is asked for now.
        """
        if self._over.is_set():
            raise Stopped
        shard = self._graph.get(shard_id)
        if shard is not None and shard.closed:
            return True
        question = self._questions.ask(shard_id, self._calls)
        self._news()
        try:
            return await question.answer
        finally:
            self._questions.drop(question)

    def known(self, shard_id: ShardId) -> bool:
        """Whether the shard has a row, as far as was seen. A parent without one is proven gone, or long done."""
        return shard_id in self._graph

    def _news(self) -> None:
        self._news_at = self._ports.clock.monotonic()
        self._wake.set()

    # -- the loop --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Ask what is to be asked, when it is due, until `leave`."""
        longest = min(self._limits.backoff_seconds, _LONGEST_BACKOFF)
        service = Service(
            self._service, self._ports.observer, (self._over,), longest, self._limits.stall_seconds, hurries=False
        )
        await service.run(self._round, self._wake)

    async def _round(self) -> float:
        """Ask for children, if that is of use, and for one page of the listing, if it is due.

        Returns in how many seconds something is due again.
        """
        now = self._ports.clock.monotonic()
        due = {each for each, asked_at in self._asked.items() if now >= asked_at + self._soon(asked_at)}
        subjects = self._questions.for_children | due
        troubles: list[ReplicatorError] = []
        if not self._filters or len(subjects) > _FEW_PARENTS:
            self._questions.childless(subjects)
        elif subjects:
            async with asyncio.TaskGroup() as group:
                for shard_id in sorted(subjects):
                    group.create_task(self._ask_for_children(shard_id, troubles), name=f"children of {shard_id}")
        if self._listing_is_due():
            await self._list_page()
        for trouble in troubles:
            raise trouble
        return self._seconds_until_due()

    def _seconds_until_due(self) -> float:
        now = self._ports.clock.monotonic()
        if self._listing is not None or self._questions.for_children:
            return 0.0
        waits = [self._listed_at + self._listing_seconds() - now]
        waits += [asked_at + self._soon(asked_at) - now for asked_at in self._asked.values()]
        return 0.0 if min(waits) <= 0 else max(_TICK_SECONDS, min(waits))

    @property
    def _asked(self) -> dict[ShardId, float]:
        """When the children of each parent were asked for; nothing when they are to be listed."""
        return {} if self._many_parents else {shard_id: parent.asked_at for shard_id, parent in self._parents.items()}

    @property
    def _many_parents(self) -> bool:
        return not self._filters or len(self._parents) > _FEW_PARENTS

    @property
    def _filters(self) -> bool:
        return self._ports.clock.monotonic() - self._refused_at >= _UNFILTERED_SECONDS

    def _soon(self, asked_at: float) -> float:
        """Time from one question to the next while an answer is awaited that must come some time."""
        soon = max(_SOON_SECONDS, (asked_at - self._news_at) / _NEWS_SHARE)
        return min(soon, max(_SOON_SECONDS, self._limits.discovery_seconds))

    def _listing_seconds(self) -> float:
        """Time between the beginnings of two listings."""
        if self._questions.for_listing:
            return 0.0
        if (self._parents and self._many_parents) or self._admission.waits or (self._lists and self.settling):
            return min(self._soon(self._listed_at), self._limits.discovery_seconds)
        return self._limits.discovery_seconds if self.seated else float("inf")

    def _listing_is_due(self) -> bool:
        seconds = self._listing_seconds()
        if self._listing is not None and seconds == float("inf"):
            self._listing = None  # nobody needs its end any more
        return self._listing is not None or self._ports.clock.monotonic() >= self._listed_at + seconds

    # -- calls -----------------------------------------------------------------------------------------------------

    async def _call(self, asking: Callable[[], Awaitable[Answer]]) -> tuple[int, Answer]:
        """One DescribeStream call within the budget; returns its number, too."""
        await self._budget.turn(self._members.me, self._members.live)
        self._calls += 1
        number = self._calls
        self._ports.observer.described(self._ref)
        try:
            async with asyncio.timeout(_CALL_SECONDS):
                return number, await asking()
        except TimeoutError as error:
            raise Unreachable(f"DescribeStream took longer than {_CALL_SECONDS:.0f} seconds.") from error

    async def _ask_for_children(self, parent: ShardId, troubles: list[ReplicatorError]) -> None:
        """Ask for the children of one shard and store them."""
        try:
            number, children = await self._call(lambda: self._ports.stream.children(self._ref, parent))
            if children is None:
                self._refused_at = self._ports.clock.monotonic()
            listed = [child for child in children or () if parent in child.parents]
            await self._store(listed)
        except ShardGone:
            listed, number = [], 0
        except ReplicatorError as error:
            troubles.append(error)
            return
        if parent in self._parents:
            self._parents[parent].asked_at = self._ports.clock.monotonic()
        self._questions.hear(listed, number)
        self._questions.childless({parent})

    async def _list_page(self) -> None:
        """Ask for the next page of the listing and store it; a failed one is asked for again."""
        if self._listing is None:
            self._listing = Listing(frozenset(self._graph))
            self._listed_at = self._ports.clock.monotonic()
        listing = self._listing
        try:
            number, page = await self._call(lambda: self._ports.stream.shard_page(self._ref, listing.after))
            self._seat.listed()
            listing.first_call = listing.first_call or number
            await self._store(page.shards)
        except ShardGone as error:
            if listing.after is not None:
                self._begin_anew()
                raise Unreachable(f"The page behind shard {listing.after} is gone; the listing begins anew.") from error
            self._seat.listed()
            self.gone = True
            listing.first_call = self._calls
            await self._complete(listing)
        except ReplicatorError:
            listing.failures += 1
            if listing.failures >= _FAILURES_OF_A_PAGE:
                self._begin_anew()
            raise
        else:
            self.gone = False
            self._questions.hear(page.shards, number)
            if listing.take(page):
                await self._complete(listing)

    def _begin_anew(self) -> None:
        self._listing = None
        self._listed_at = _LONG_AGO

    async def _complete(self, listing: Listing) -> None:
        """A whole listing was read: it tells what is over, and what vanished."""
        self._listing = None
        self.completed += 1
        self._questions.settle(listing)
        if self.settling:
            self._tell_coordinator()
        if self.seated:
            await self._mark_vanished(listing)
        await self._prove_gone(listing)
        if not self._admission.waits:
            self._began_at = None

    # -- what was seen ---------------------------------------------------------------------------------------------

    async def _store(self, seen: Iterable[Shard]) -> None:
        """Store what is new. Who has no seat stores only what descends from shards it asked about."""
        subjects = self._parents.keys() | self._questions.shards
        listed = [
            shard
            for shard in seen
            if self._lists or shard.shard_id in self._graph or not subjects.isdisjoint(shard.parents)
        ]
        known = self._graph
        graph, new = self._admission.admit(known, listed)
        back = {shard.shard_id for shard in listed if self._is_back(shard.shard_id)}
        grown = [graph[shard_id] for shard_id, shard in known.items() if graph[shard_id] != shard or shard_id in back]
        if not grown and not new:
            return
        found_at = self._server_time() if self._began_at is None else self._began_at
        await self._ports.coordination.discover(self._ref, [*grown, *new], found_at)
        self._graph = {**self._graph, **graph}
        self._news_at = self._ports.clock.monotonic()
        self._tell_coordinator()
        if any(self._parents.keys().isdisjoint(shard.parents) or self.seated for shard in new):
            self._members.announce()

    def _server_time(self) -> float:
        """The time that the last reading of the rows told, and what passed since: starts are compared with it.

        Our own wall clock may be wrong, and is another one than that of the worker that notes a start.
        """
        return self._state.at + self._ports.clock.monotonic() - self._seen_at

    def _is_back(self, shard_id: ShardId) -> bool:
        row = self._state.rows.get(shard_id)
        return row is not None and row.vanished

    async def _mark_vanished(self, listing: Listing) -> None:
        """Count listings that leave a stored shard out."""
        rows = self._state.rows
        left_out = {each for each in listing.known - listing.seen.keys() if each in rows and not rows[each].vanished}
        self._misses = {shard_id: self._misses.get(shard_id, 0) + 1 for shard_id in sorted(left_out)}
        vanished = [shard_id for shard_id, misses in self._misses.items() if misses >= _LISTINGS_WITHOUT]
        for shard_id in vanished:
            await self._ports.coordination.mark_vanished(self._ref, shard_id, self._server_time())
        if vanished:
            self._tell_coordinator()

    async def _prove_gone(self, listing: Listing) -> None:
        """Ask whether parents that are not listed can still be read. A row that is unreadable may be one of them."""
        missing = self._admission.missing(self._graph, listing.seen, self._ports.clock.monotonic())
        if not missing or self._state.unreadable is not None:
            return
        troubles: list[ReplicatorError] = []
        turns = asyncio.Semaphore(_PROBES_AT_ONCE)
        async with asyncio.TaskGroup() as group:
            for parent in missing:
                group.create_task(self._probe(parent, turns, troubles), name=f"probe {parent}")
        await self._store(())
        for trouble in troubles:
            raise trouble

    async def _probe(self, parent: ShardId, turns: asyncio.Semaphore, troubles: list[ReplicatorError]) -> None:
        async with turns:
            try:
                for _ in range(_PROBES_PER_LISTING):
                    try:
                        await self._ports.stream.iterator(self._ref, parent, HORIZON)
                    except ShardGone:
                        self._admission.is_gone(parent)
                        continue
                    except RecordsTrimmed:
                        pass
                    self._admission.is_there(parent, self._ports.clock.monotonic())
                    return
            except ReplicatorError as error:
                troubles.append(error)
