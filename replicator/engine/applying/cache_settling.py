"""Settling what a cache is owed: it is probed while it is away, and behind its return entries are dropped.

Every worker settles what it owes itself; one of them, whose seat it is, also what is left of workers that are gone.
Invariant: a row is taken away only behind the drop of its entry, and only as it was read before that drop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence

from replicator.domain.cache_debt import OwedEntry, PartAway, SeenServer
from replicator.domain.cache_keys import settlement
from replicator.domain.cache_restores import Again, again
from replicator.domain.errors import ReplicatorError, Unreachable
from replicator.domain.health import is_silence
from replicator.engine.applying.cache_debt import CacheDebt, Share

_PROBE_SECONDS = 1.0
"""Time between two probes of a cache that is away."""

_SETTLE_SECONDS = 10.0
"""What many drops at once may take."""

_FLUSH_SECONDS = 300.0

_AT_ONCE = 1000
"""Entries that are dropped before their rows are taken away."""

_LOOK_SECONDS = 10.0
"""Time between two looks at rows of others, and two tries of entries that are refused by themselves."""

_NOTE_SECONDS = 60.0
"""Time between two notes of the server, which say when it was last seen."""

_LATE_SECONDS = 60.0
"""So much later than its lease ends the end of a worker may be noticed here, when settling takes long."""

_READING_SHARE = 20
"""Reading takes at most this part of the time."""


class Settler:
    """What one worker does about the debt of one cache."""

    def __init__(self, debt: CacheDebt) -> None:
        self.debt = debt
        self._clock = debt.clock
        self._read_at = float("-inf")
        self._read_took = 0.0
        self._seen: SeenServer | None = None
        self._seen_at = float("-inf")
        """When, by a clock that nothing sets."""
        self._noted: SeenServer | None = None
        """As it was noted for all, while this worker does that."""
        self._others: frozenset[str] = frozenset()
        self._restored_at = float("-inf")
        """When only what is remembered was done again."""
        self._lacks = False
        """Whether a worker may have died then that remembered more."""

    async def look(self, share: Share) -> float:
        """Probe, count or settle, whatever is due; returns in how many seconds to look again."""
        debt = self.debt
        if not share.seated and debt.share.seated:
            debt.others, self._read_at, self._noted = (0, None), float("-inf"), None
        debt.share = share
        self._miss(share)
        was_away, began = debt.error is not None, self._clock.monotonic()
        try:
            if was_away:
                await self._probe()
            await self._watch()
            if self._lacks:
                await self._do_again(Again.ALL)
                self._lacks = False
            found = await self._read() if self._is_due() or (was_away and debt.others[0]) else []
            if debt.flush is not None:
                await self._flush()
            await self._settle(found)
        except ReplicatorError:
            if debt.error is None:  # the owed table does not answer
                raise
            if self._is_due():
                await self._read()
            return _PROBE_SECONDS
        if isinstance(debt.refusing, Unreachable):  # a part of it may be back at any moment
            took = self._clock.monotonic() - began
            return min(_LOOK_SECONDS, max(_PROBE_SECONDS, _READING_SHARE * took))
        return _LOOK_SECONDS

    async def settle_own(self) -> int:
        """Drop what this process owes, where workers look after all the rest; returns how many entries it still owes.

        Those are rows, which a worker settles.
        """
        debt = self.debt
        try:
            if debt.error is not None:
                await self._probe()
            await self._settle(())
        except ReplicatorError:
            pass  # it is away, or its rows are: what is owed stays owed
        return len({entry.key for entry in (*debt.mine.values(), *debt.held.values())})

    def _miss(self, share: Share) -> None:
        """What a worker did lately is forgotten with it, so what this one remembers is not enough for a while.

        It may have died with the server that it acted on, and be missed behind the return of another one.
        """
        if self._others - share.others:
            now = self._clock.monotonic()
            self.debt.recent.missed(now)
            self._lacks = now - self._restored_at <= share.lease_seconds + _LATE_SECONDS
        self._others = share.others

    async def _watch(self) -> None:
        """See whether its servers are the same still; what another one may lack is owed before it is noted."""
        debt = self.debt
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                servers = await debt.cache.servers()
        except TimeoutError as error:
            late = Unreachable(f"Cache {debt.name} did not say within {_PROBE_SECONDS:.0f} s which server it is.")
            debt.fell(late)
            raise late from error
        except ReplicatorError as error:
            debt.fell(error)
            raise
        if servers is None:
            return
        now, clock = self._clock.now(), self._clock.monotonic()
        seen = self._seen
        if debt.share.seated and self._noted is None:  # a worker that is gone may have seen another one
            seen = await debt.rows.server() or seen
        if seen is not None:
            unseen = clock - self._seen_at if seen is self._seen else now - seen.at
            remembered = debt.recent.remembers(clock)
            what = again(debt.policy.on_restore, seen.run_id, servers, unseen, remembered=remembered)
            if what is not Again.NOTHING:
                await self._do_again(what)
            if what is Again.RECENT:
                self._restored_at = clock
        known = servers.known(None if seen is None else seen.run_id)
        self._seen, self._seen_at = SeenServer(known, now), clock
        noted = self._noted
        if debt.share.seated and (noted is None or noted.run_id != known or now - noted.at > _NOTE_SECONDS):
            await debt.rows.put_server(self._seen)
            self._noted = self._seen

    async def _do_again(self, what: Again) -> None:
        """Owe what another server may lack, in parts that there is room for: each is settled before the next one."""
        left: Sequence[str] = await self.debt.went_back(what)
        if left and self.debt.others[0]:
            await self._settle(await self._read())  # what others owe takes room, too
        while left:
            left = await self.debt.owe_some(left)
            if left:
                await self._settle(())

    # -- rows of others ------------------------------------------------------------------------------------------------

    def _is_due(self) -> bool:
        rest = max(_LOOK_SECONDS, _READING_SHARE * self._read_took)
        return self.debt.share.seated and self._clock.monotonic() - self._read_at >= rest

    async def _read(self) -> list[OwedEntry]:
        """Rows that this process did not write, and the flush that is owed."""
        debt, began = self.debt, self._clock.monotonic()
        flush = await debt.rows.flush()
        if debt.flush is None:
            debt.flush = flush
        ours = debt.mine.keys() | debt.held.keys()
        found = [entry async for entry in self._rows() if entry.name not in ours and self._is_over(entry)]
        debt.others = len(found), min((entry.since for entry in found), default=None)
        self._read_at = self._clock.monotonic()
        self._read_took = self._read_at - began
        debt.tell()
        return found

    def _is_over(self, entry: OwedEntry) -> bool:
        """Whether what was under way when an entry became owed has come, or never will."""
        return entry.due <= self._clock.now()

    async def _rows(self) -> AsyncIterator[OwedEntry]:
        after: str | None = None
        while True:
            page = await self.debt.rows.page(after)
            for entry in page.entries:
                yield entry
            after = page.after
            if after is None:
                return

    # -- the cache is back ---------------------------------------------------------------------------------------------

    async def _probe(self) -> None:
        """Drop an entry that is owed: that shows that the cache is back, and that it takes writes.

        Without one it fell away with a flush, which is then the probe.
        """
        debt = self.debt
        if debt.probed is not None:
            await debt.ask([settlement(debt.probed)], _PROBE_SECONDS)
        debt.answered()

    async def _settle(self, found: Sequence[OwedEntry]) -> None:
        """Drop what is owed, oldest first, until nothing is left that the cache does not refuse by itself."""
        debt = self.debt
        tried: set[OwedEntry] = set()
        refused: ReplicatorError | None = None
        debt.release([entry for entry in debt.held.values() if self._is_over(entry)])
        left = [*debt.mine.values(), *found]
        while left:
            left.sort(key=lambda entry: entry.since)
            for start in range(0, len(left), _AT_ONCE):
                refused = await self._drop(left[start : start + _AT_ONCE]) or refused
            tried.update(left)
            left = [entry for entry in debt.mine.values() if entry not in tried]
        if debt.flush is None:
            debt.refuses(refused)

    async def _drop(self, entries: Sequence[OwedEntry]) -> ReplicatorError | None:
        """Drop some, and take their rows away; returns why one of them was refused."""
        self.debt.probed = entries[0].key
        answer = await self.debt.ask([settlement(entry.key) for entry in entries], _SETTLE_SECONDS)
        await self._settled([entry for entry in entries if entry.key not in answer.refused])
        return next(iter(answer.refused.values()), None)

    async def _settled(self, entries: Iterable[OwedEntry]) -> None:
        """Take rows away whose entries were dropped; what became owed meanwhile bears another token, and stays."""
        debt, gone = self.debt, list(entries)
        if not gone:
            return
        await debt.rows.settle(gone)
        ours = 0
        for entry in gone:
            if debt.mine.get(entry.name) == entry:
                del debt.mine[entry.name]
                ours += 1
        count = max(0, debt.others[0] - (len(gone) - ours))
        debt.others = count, debt.others[1] if count else None
        debt.counts.settled += len(gone)
        debt.tell()

    async def _flush(self) -> None:
        """Drop all entries, and take away every row that was there before."""
        debt = self.debt
        flush = debt.flush
        assert flush is not None, "asked before"
        held = debt.held
        found = [entry async for entry in self._rows() if entry.name not in held and self._is_over(entry)]
        before = {entry.name: entry for entry in found} | debt.mine
        try:
            async with asyncio.timeout(_FLUSH_SECONDS):
                await debt.cache.flush(debt.policy.patterns)
        except TimeoutError as error:
            late = Unreachable(f"Cache {debt.name} did not drop its entries within {_FLUSH_SECONDS:.0f} s.")
            debt.fell(late)
            raise late from error
        except PartAway as error:
            debt.refuses(error)
            return
        except ReplicatorError as error:
            if is_silence(error):  # else the cache answers, and what is denied is reported as this service's trouble
                debt.fell(error)
            raise
        debt.counts.flushes += 1
        debt.counts.flushed_at = self._clock.now()
        await self._settled(before.values())
        await debt.rows.settle_flush(flush)
        if debt.flush == flush:
            debt.flush = None
        debt.tell()
