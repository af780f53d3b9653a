"""Which shards a stream has: every DescribeStream call of this worker for one stream is made here.

The worker that holds the stream's seat lists it regularly; every other one only asks for the children of shards that it
read to their end, and whether a shard is over. `domain/shards/discovery_schedule.py` decides when and what is asked.
Invariant: progress never goes back. A page is stored when it is there, a page that fails is asked for again, and
nothing that one listing leaves out is taken for gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import TypeVar

from replicator.domain.errors import ReplicatorError, ShardGone, Unreachable
from replicator.domain.identifiers import ShardId
from replicator.domain.progress import END
from replicator.domain.shards.discovery_schedule import LONG_AGO, Schedule
from replicator.domain.shards.leases import StreamRef, StreamState
from replicator.domain.shards.lineage import Shard, childless
from replicator.domain.shards.listing import Listing
from replicator.engine.bounded import each, raise_first
from replicator.engine.discovery.catalogue import Catalogue
from replicator.engine.discovery.describe_rate import DescribeBudget
from replicator.engine.discovery.questions import Questions
from replicator.engine.discovery.seat import SeatHolder
from replicator.engine.limits import Limits
from replicator.engine.membership.members import Members
from replicator.engine.service import Service
from replicator.engine.shard.worker import ShardPorts
from replicator.engine.waiting import Flag, Stopped
from replicator.ports.services import ServiceKind, stream_service

_UNFILTERED_SECONDS = 600.0
"""For so long no children are asked for where that was refused: it may have been about one shard only."""
_CALL_SECONDS = 15.0
_LONGEST_BACKOFF = 5.0
_FAILURES_OF_A_PAGE = 8
"""A page that fails so often in a row is given up, and the listing begins anew."""

Answer = TypeVar("Answer")


class Discovery:
    """One stream's shards, as one session of a worker finds them. Implements `Ends`.

    It is longer than a class should be because its loop, its calls and the questions of readers share one turn at the
    endpoint; what is decided and what is stored has classes of its own.
    """

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
        self._wake_coordinator = wake
        self._service = stream_service(ServiceKind.DISCOVERY, ref)
        self._over = Flag()
        self._wake = Flag()
        self._catalogue = Catalogue(ref, ports)
        self._parents: dict[ShardId, float] = {}
        """Shards that were read to their end and have no known child, with when their children were last asked for."""
        self._questions = Questions()
        self._refused_at = LONG_AGO
        """When the endpoint last could not, or would not, list a shard's children."""
        self._seat = SeatHolder(ref, ports.coordination, members, limits=limits, clock=ports.clock)
        self._calls = 0
        self._listing: Listing | None = None
        self._listed_at = LONG_AGO
        self._news_at = LONG_AGO
        self.settling = False
        """Whether everything that is known was read to its end, for some rule."""
        self._alone = False
        self.completed = 0
        """How many whole listings were read."""
        self.gone = False
        """Whether the stream itself was gone when it was last asked."""

    # -- for the coordinator and the readers -------------------------------------------------------------------------

    @property
    def seated(self) -> bool:
        """Whether this worker lists the stream."""
        return self._seat.held is not None

    @property
    def waits(self) -> bool:
        """Whether shards were seen that could not be stored yet."""
        return bool(self._catalogue.unstored)

    @property
    def unstored(self) -> dict[ShardId, tuple[ShardId, ...]]:
        """Shards that were seen and could not be stored yet, with the parents that hold them back."""
        return self._catalogue.unstored

    def see(self, state: StreamState, ours: Collection[ShardId]) -> None:
        """Take what is stored now, before anything is done about it. `ours`: shards that we read in this session."""
        self._catalogue.see(state)
        ended = [shard_id for shard_id, row in state.rows.items() if END in row.checkpoints.values()]
        parents = [each for each in childless(self._catalogue.graph, ended) if self.seated or each in ours]
        if not self._parents.keys() >= set(parents):
            self._news()
        self._parents = {shard_id: self._parents.get(shard_id, LONG_AGO) for shard_id in parents}

    async def claim_seat(self) -> None:
        """Take the discoverer's seat when no worker has it, or when its owner is dead or does not list."""
        if await self._seat.claim(self._catalogue.state.seat):
            self._catalogue.begin()
            self._news()

    def settle(self, *, settling: bool, alone: bool = False) -> None:
        """Note whether everything that is known was read to its end, so that only listings can show more.

        `alone`: the worker that has the seat does not say what it found, so this one looks, too.
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

    async def is_over(self, shard_id: ShardId) -> bool:
        """Whether the stream says that a shard gets no more records; waits for the answer. Raises `Stopped`.

        A shard that was ever seen closed, or with a child, stays over; everything else is asked for now.
        """
        if self._over.is_set():
            raise Stopped
        shard = self._catalogue.graph.get(shard_id)
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
        return shard_id in self._catalogue.graph

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
        schedule = self._schedule()
        subjects = schedule.subjects(self._ports.clock.monotonic())
        troubles: list[ReplicatorError] = []
        if not schedule.one_by_one(subjects):
            self._questions.childless(subjects)
        elif subjects:
            troubles = await each(
                sorted(subjects), self._ask_for_children, at_once=len(subjects), name="ask for children"
            )
        schedule = self._schedule()
        if not schedule.needs_listing:
            self._listing = None  # its end is needed no more
        if schedule.listing_is_due(self._ports.clock.monotonic()):
            await self._list_page()
        raise_first(troubles)
        return self._schedule().due_in(self._ports.clock.monotonic())

    def _schedule(self) -> Schedule:
        return Schedule(
            interval=self._limits.discovery_seconds,
            news_at=self._news_at,
            listed_at=self._listed_at,
            parents=self._parents,
            filters=self._ports.clock.monotonic() - self._refused_at >= _UNFILTERED_SECONDS,
            questions=self._questions.for_children,
            asks_listing=self._questions.for_listing,
            under_way=self._listing is not None,
            holds_back=self.waits,
            seated=self.seated,
            read_out=self._lists and self.settling,
        )

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

    async def _ask_for_children(self, parent: ShardId) -> None:
        """Ask for the children of one shard and store them."""
        try:
            number, children = await self._call(lambda: self._ports.stream.children(self._ref, parent))
            if children is None:
                self._refused_at = self._ports.clock.monotonic()
            listed = [child for child in children or () if parent in child.parents]
            await self._store(listed)
        except ShardGone:
            listed, number = [], 0
        if parent in self._parents:
            self._parents[parent] = self._ports.clock.monotonic()
        self._questions.hear(listed, number)
        self._questions.childless({parent})

    async def _list_page(self) -> None:
        """Ask for the next page of the listing and store it; a failed one is asked for again."""
        if self._listing is None:
            self._listing = Listing(frozenset(self._catalogue.graph))
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
                raise Unreachable(f"The page behind shard {listing.after} is gone; the listing restarts.") from error
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
            if listing.take(page.shards, page.last):
                await self._complete(listing)

    def _begin_anew(self) -> None:
        self._listing = None
        self._listed_at = LONG_AGO

    async def _complete(self, listing: Listing) -> None:
        """A whole listing was read: it says what is over, and what vanished."""
        self._listing = None
        self.completed += 1
        self._questions.settle(listing)
        if self.settling:
            self._wake_coordinator()
        if self.seated and await self._catalogue.mark_vanished(listing):
            self._wake_coordinator()
        troubles = await self._catalogue.prove_gone(listing.seen)
        if troubles is not None:
            await self._store(())
        raise_first(troubles or ())
        self._catalogue.completed()

    async def _store(self, seen: Iterable[Shard]) -> None:
        """Store what is new. A worker without the seat stores only what descends from shards it asked about."""
        subjects = self._parents.keys() | self._questions.shards
        known = self._catalogue.graph
        new = await self._catalogue.store(
            shard for shard in seen if self._lists or shard.shard_id in known or not subjects.isdisjoint(shard.parents)
        )
        if new is None:
            return
        self._news_at = self._ports.clock.monotonic()
        self._wake_coordinator()
        if any(self._parents.keys().isdisjoint(shard.parents) or self.seated for shard in new):
            self._members.announce()
