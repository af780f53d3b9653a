"""A cache whose outages hold nothing back: what it does not carry out it is owed (`cache_settling.py` settles that).

It stands in front of the cache, so what asks for an action gets it done or owed, and goes on. Invariant: an action
counts as done when its entry is changed, or a row says durably that the entry is to be dropped. Costs nothing while
the cache answers.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Protocol
from uuid import uuid4

from msgspec import Struct

from replicator.domain.cache_debt import DebtPolicy, OnFull, OwedEntry, OwedFlush, full, unstored
from replicator.domain.cache_keys import CacheAction
from replicator.domain.cache_restores import Again, CacheServers
from replicator.domain.errors import ReplicatorError, Unreachable
from replicator.domain.identifiers import RegionId
from replicator.engine.waiting import Flag
from replicator.ports.cache_debt import CacheDebtRows
from replicator.ports.clock import Clock
from replicator.ports.events import CacheState, Observer
from replicator.ports.targets import Cache, CacheAnswer, CacheFill

_PATIENCE_SECONDS = 1.0
"""A cache that does not answer a batch for so long is away: what waits behind it would be late."""


class WatchedCache(Cache, Protocol):
    """A cache that says which server it is, and of which all entries can be dropped."""

    async def servers(self) -> CacheServers | None:
        """What its servers say of themselves; None when that is denied."""

    async def flush(self, patterns: Sequence[str] | None) -> int:
        """Drop every entry whose key matches a pattern, or everything; returns how many there were."""


class Share(Struct, frozen=True):
    """What this worker does of what belongs to all: whether it looks after rows of others, and among how many.

    `others`: those that live beside it. One that died is missed within `lease_seconds`.
    """

    seated: bool
    workers: int
    others: frozenset[str] = frozenset()
    lease_seconds: float = 10.0


class DebtCounts(Struct):
    """What became of actions since the process began: entries, and how often all of them were dropped."""

    owed: int = 0
    settled: int = 0
    ignored: int = 0
    flushes: int = 0
    restores: int = 0
    flushed_at: float | None = None
    """Seconds since 1970."""


class Recent:
    """Entries that were acted on lately, by batches; what is more than `most` is forgotten, the oldest first."""

    def __init__(self, seconds: float, most: int, now: float) -> None:
        self._seconds = seconds
        self._most = most
        self._count = 0
        self._since = now
        self._batches: deque[tuple[float, list[str]]] = deque()

    def note(self, keys: list[str], now: float) -> None:
        """A batch took effect."""
        self._batches.append((now, keys))
        self._count += len(keys)
        while self._count > self._most:
            self._since = self._forget()
        while self._batches and self._batches[0][0] < now - self._seconds:
            self._forget()

    def _forget(self) -> float:
        at, keys = self._batches.popleft()
        self._count -= len(keys)
        return at

    def missed(self, now: float) -> None:
        """There were actions until now that are not remembered here."""
        self._since = now

    def remembers(self, now: float) -> bool:
        """Whether nothing of the time that counts was forgotten, or came before this process."""
        return self._since <= now - self._seconds

    def keys(self) -> list[str]:
        """All of them, once each."""
        return list(dict.fromkeys(key for _, keys in self._batches for key in keys))


class CacheDebt:
    """One cache with what it is owed, shared by every shard of the process."""

    def __init__(  # noqa: PLR0913 - its collaborators, given once
        self,
        name: str,
        region: RegionId,
        cache: WatchedCache,
        rows: CacheDebtRows,
        policy: DebtPolicy,
        *,
        clock: Clock,
        observer: Observer,
    ) -> None:
        """`region`: of the cache, where its rows are."""
        self.name = name
        self.region = region
        self.cache = cache
        self.rows = rows
        self.policy = policy
        self.clock = clock
        self.wake = Flag()
        """Set when it fell away: it is to be probed."""
        self.error: ReplicatorError | None = None
        """Why it is away; None while it answers."""
        self.refusing: ReplicatorError | None = None
        """Why it does not carry out some of what it is owed, while it answers: a part of a cluster, or denied keys."""
        self.mine: dict[str, OwedEntry] = {}
        """What it is owed by this process, by name."""
        self.held: dict[str, OwedEntry] = {}
        """The same of changes that are under way, which nothing tells of when this process ends."""
        self.others: tuple[int, float | None] = (0, None)
        """How many rows of others were read last, and since when the oldest is owed."""
        self.flush: OwedFlush | None = None
        """The flush that it is owed, as far as this process knows."""
        self.probed: str | None = None
        """An entry that was owed last: a probe drops it."""
        self.share = Share(seated=False, workers=1)
        self.counts = DebtCounts()
        self.recent = Recent(policy.restore_window, policy.max_keys, clock.monotonic())
        self._observer = observer
        self._since = clock.monotonic()
        self.tell()

    # -- the port ------------------------------------------------------------------------------------------------------

    async def apply(self, actions: Sequence[CacheAction]) -> CacheAnswer:
        """Carry the actions out or owe them; raises what keeps the latter from being noted."""
        if self.error is not None:
            await self._owe([action.key for action in actions], self.error)
            return CacheAnswer()
        try:
            answer = await self.ask(actions, _PATIENCE_SECONDS)
        except ReplicatorError as error:
            self.wake.set()
            await self._owe([action.key for action in actions], error)
            return CacheAnswer()
        self.recent.note([action.key for action in actions], self.clock.monotonic())
        if answer.refused:
            why = next(iter(answer.refused.values()))
            self.refuses(why)
            await self._owe(list(answer.refused), why)
        return CacheAnswer(answer.changed, answer.unstored, leased=answer.leased)

    async def fill(self, fills: Sequence[CacheFill]) -> int:
        """Store entries whose leases still stand; one that is away is left alone."""
        if self.error is not None:
            return 0
        async with asyncio.timeout(_PATIENCE_SECONDS):
            return await self.cache.fill(fills)

    async def heads(self, keys: Sequence[str]) -> list[bytes]:
        """The first bytes of entries."""
        return await self.cache.heads(keys)

    async def ask(self, actions: Sequence[CacheAction], seconds: float) -> CacheAnswer:
        """What the cache itself says to actions; when nothing, it is away."""
        try:
            async with asyncio.timeout(seconds):
                return await self.cache.apply(actions)
        except TimeoutError as error:
            late = Unreachable(f"Cache {self.name} did not answer within {seconds:.0f} s.")
            self.fell(late)
            raise late from error
        except ReplicatorError as error:
            self.fell(error)
            raise

    # -- how it stands -------------------------------------------------------------------------------------------------

    def fell(self, error: ReplicatorError) -> None:
        """It is away: nothing is sent but probes."""
        if self.error is None:
            self._since = self.clock.monotonic()
        self.error = error
        self.tell()

    def answered(self) -> None:
        """It took a probe, so everything is sent again."""
        if self.error is not None:
            self.error, self._since = None, self.clock.monotonic()
            self.tell()

    def refuses(self, error: ReplicatorError | None) -> None:
        """Why it does not carry out a part of what it is asked; None: it does all of it."""
        news, self.refusing = (error is None) is not (self.refusing is None), error
        if news and error is not None:
            self.wake.set()
        if news:
            self.tell()

    def tell(self) -> None:
        """Report how it stands."""
        # An entry that is owed again keeps its place and its time, so the first one is the oldest.
        mine = next(iter(self.mine.values()), None)
        since = [each.since for each in (mine, self.flush) if each is not None]
        since += [] if self.others[1] is None else [self.others[1]]
        counts = self.counts
        self._observer.cache_stands(
            CacheState(
                cache=self.name,
                region=self.region,
                error=self.error,
                refusing=self.refusing,
                seconds=self.clock.monotonic() - self._since,
                keys=len(self.mine) + self.others[0],
                oldest=min(since, default=None),
                owes_flush=self.flush is not None,
                owed=counts.owed,
                settled=counts.settled,
                ignored=counts.ignored,
                flushes=counts.flushes,
                restores=counts.restores,
                flushed_at=counts.flushed_at,
            )
        )

    # -- debts ---------------------------------------------------------------------------------------------------------

    async def went_back(self, what: Again) -> list[str]:
        """The cache may hold older entries than before: it is owed a flush, or what is returned is to be owed anew."""
        self.counts.restores += 1
        self.tell()
        if what is Again.ALL and self.policy.may_flush:
            await self._put_flush(self._went_back())
            return []
        return self.recent.keys()

    async def owe_some(self, keys: Sequence[str]) -> Sequence[str]:
        """Owe what was acted on before it went back, as much as there is room for; returns what is left."""
        room = max(1, self._room - len(self.mine))
        await self._owe(keys[:room], self._went_back())
        return keys[room:]

    def _went_back(self) -> Unreachable:
        return Unreachable(f"Cache {self.name} is, or has, another server than before, and may hold older entries.")

    async def drop_all(self) -> bool:
        """Owe the drop of all entries; False when they cannot be told from those of others."""
        if self.policy.may_flush:
            await self._put_flush(Unreachable(f"Cache {self.name} may hold entries that were not kept in step."))
            self.wake.set()
            self.tell()
        return self.policy.may_flush

    async def hold(self, keys: Sequence[str], seconds: float) -> list[OwedEntry]:
        """Make entries owed of which a change comes that no record tells of, within so many seconds from now.

        None is dropped before `release`, which says that it came or never will, or before that time is over. There is
        room for these whatever else is owed, and a flush that comes before the change stands for none of them.
        """
        token, now = uuid4().hex, self.clock.now()
        entries = [OwedEntry(key, token, now, now + seconds) for key in keys]
        self.held.update((entry.name, entry) for entry in entries)
        try:
            await self.rows.put(entries)
        except ReplicatorError:
            self.release(entries)  # they may be there all the same
            raise
        return entries

    def release(self, entries: Sequence[OwedEntry]) -> None:
        """The change that entries were held for is over: they are dropped with the next look."""
        for entry in entries:
            if self.held.pop(entry.name, None) is not None:
                self.mine[entry.name] = entry
                self.probed = entry.key
        self._noted(len(entries))

    async def _owe(self, keys: Sequence[str], error: ReplicatorError) -> None:
        """Make entries owed, or all of them when there are too many; behind this their records may count as done."""
        self.probed = keys[-1]
        if self.flush is not None:
            await self._put_flush(error)
            self._noted(len(keys))
            return
        new = [key for key in dict.fromkeys(keys) if key not in self.mine]
        over = new[max(0, self._room - len(self.mine)) :]
        if over and self.policy.on_full is OnFull.FLUSH:
            await self._put_flush(error)
            self._noted(len(keys))
            return
        fits = dict.fromkeys(keys).keys() - set(over)
        if fits:
            await self._put([key for key in dict.fromkeys(keys) if key in fits], error)
        self._noted(len(fits))
        if over and self.policy.on_full is OnFull.WAIT:
            raise full(self.name, len(self.mine) + self.others[0], error)
        if over:
            self.counts.ignored += len(over)
            self.tell()

    def _noted(self, count: int) -> None:
        self.counts.owed += count
        self.tell()

    @property
    def _room(self) -> int:
        """How many entries this process may owe: workers share the bound, and one of them knows of rows of the dead."""
        return self.policy.max_keys // max(self.share.workers, 1) - (self.others[0] if self.share.seated else 0)

    async def _put(self, keys: Sequence[str], error: ReplicatorError) -> None:
        token, now = uuid4().hex, self.clock.now()
        known = self.mine
        entries = [OwedEntry(key, token, known[key].since if key in known else now) for key in keys]
        known.update((entry.key, entry) for entry in entries)  # first: the call may take effect without an answer
        try:
            await self.rows.put(entries)
        except ReplicatorError as why:
            raise unstored(error, why) from why

    async def _put_flush(self, error: ReplicatorError) -> None:
        since = self.clock.now() if self.flush is None else self.flush.since
        flush = self.flush = OwedFlush(uuid4().hex, since)
        try:
            await self.rows.put_flush(flush)
        except ReplicatorError as why:
            raise unstored(error, why) from why
