"""Workers that plan, claim and hand over shards, where views are stale, clocks differ and processes stand still.

Time is virtual. The store is conditional as the real one: a claim needs the owner and epoch it saw, a checkpoint needs
its own. What a worker does between looking and acting is delayed, so that others act in between; a worker that is
paused goes on, later, with what it had in mind.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random

from replicator.domain.identifiers import ShardId, WorkerId
from replicator.domain.shards.assignment import Bounds, Doubts, Free, Load, plan
from replicator.domain.shards.leases import LeaseRow
from replicator.domain.shards.lineage import Shard
from replicator.domain.values import replace

LEASE_SECONDS = 10.0
FENCE_SECONDS = 0.8 * LEASE_SECONDS
BEAT_SECONDS = 2.0
CYCLE_SECONDS = 2.0
STALE_SECONDS = 1.0
DRAIN_SECONDS = 1.0
CLOCK_SKEW = 0.05
"""Clocks run fast or slow by up to this much; what they show differs by anything."""

BOUNDS = Bounds()


@dataclass(slots=True)
class Tally:
    """What happened, for the tests to judge."""

    claims: int = 0
    collisions: int = 0
    moves: int = 0
    """Shards handed over."""
    most_moves: int = 0
    """By one worker in one cycle."""
    returned: int = 0
    """Shards that went back to the worker that had handed them over."""
    saves: int = 0
    refused_saves: int = 0


@dataclass(slots=True)
class View:
    """What a worker saw when it looked."""

    rows: dict[ShardId, LeaseRow]
    awaited: int
    live: set[WorkerId]
    free_since: dict[ShardId, float]
    """In the order of their ids."""
    held: dict[WorkerId, int]


@dataclass(slots=True, eq=False)
class Worker:
    """One process. `stuck`: it beats and does nothing else."""

    number: int
    rate: float
    offset: float
    name: WorkerId
    session: int = 0
    paused_until: float = 0.0
    dead: bool = False
    leaving: bool = False
    stuck: bool = False
    last_beat: float = 0.0
    """By its own clock."""
    running: dict[ShardId, int] = field(default_factory=dict)
    handing: set[ShardId] = field(default_factory=set)
    seen_beats: dict[WorkerId, tuple[int, float]] = field(default_factory=dict)
    free_since: dict[ShardId, float] = field(default_factory=dict)
    parents_read: set[ShardId] = field(default_factory=set)
    doubts: Doubts = field(default_factory=Doubts)

    def begin_anew(self) -> None:
        """A worker whose deadline passed drops everything and goes on under a new id."""
        self.session += 1
        self.name = WorkerId(f"w{self.number:02}-{self.session}")
        self.running.clear()
        self.handing.clear()
        self.parents_read.clear()

    def clock(self, now: float) -> float:
        return self.offset + now * self.rate


class World:
    """`streams`: how many shards each has. `fenced` and `conditional` take a protection away to show what it is for."""

    def __init__(
        self,
        seed: int,
        streams: Iterable[int],
        *,
        bounds: Bounds = BOUNDS,
        fenced: bool = True,
        conditional: bool = True,
    ) -> None:
        self.random = Random(seed)
        self.now = 0.0
        self.bounds = bounds
        self.fenced = fenced
        self.conditional = conditional
        self.tally = Tally()
        self.workers: list[Worker] = []
        self.pulses: dict[WorkerId, int] = {}
        self.stream_of: dict[ShardId, int] = {}
        self.rows: dict[ShardId, LeaseRow] = {}
        self.awaited: dict[ShardId, WorkerId] = {}
        """Finished shards whose child is not listed yet, and who read them."""
        self.left_by: dict[ShardId, WorkerId] = {}
        self._queue: list[tuple[float, int, Worker | None, Callable[[], None]]] = []
        self._order = 0
        self._streams = 0
        for size in streams:
            for number in range(size):
                shard_id = ShardId(f"s{self._streams:03}-{number:04}")
                self.stream_of[shard_id] = self._streams
                self.rows[shard_id] = LeaseRow(Shard(shard_id))
            self._streams += 1

    # -- time ------------------------------------------------------------------------------------------------------

    def at(self, delay: float, worker: Worker | None, action: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._queue, (self.now + delay, self._order, worker, action))

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self._queue and self._queue[0][0] <= end:
            self.now, order, worker, action = heapq.heappop(self._queue)
            if worker is not None and worker.dead:
                continue
            if worker is not None and self.now < worker.paused_until:
                heapq.heappush(self._queue, (worker.paused_until, order, worker, action))
                continue
            action()
        self.now = end

    # -- what is done to workers -----------------------------------------------------------------------------------

    def join(self) -> Worker:
        worker = Worker(
            len(self.workers),
            rate=1 + self.random.uniform(-CLOCK_SKEW, CLOCK_SKEW),
            offset=self.random.uniform(0, 1e6),
            name=WorkerId(f"w{len(self.workers):02}-0"),
        )
        self.workers.append(worker)
        self._beat(worker)
        self.at(self.random.uniform(0, 0.5), worker, lambda: self._look(worker))
        self.at(self.random.uniform(0, 1), worker, lambda: self._save(worker))
        return worker

    def leave(self, worker: Worker) -> None:
        """SIGTERM: everything is drained and given back, then the worker is gone."""
        worker.leaving = True
        for shard_id in list(worker.running):
            self._hand_over(worker, shard_id)

        def gone() -> None:
            self.pulses.pop(worker.name, None)
            worker.dead = True

        self.at(DRAIN_SECONDS + 0.1, worker, gone)

    def kill(self, worker: Worker) -> None:
        worker.dead = True

    def pause(self, worker: Worker, seconds: float) -> None:
        worker.paused_until = self.now + seconds

    def able(self) -> list[Worker]:
        return [worker for worker in self.workers if not worker.dead and not worker.leaving]

    def disturb(self) -> None:
        """Something happens to some worker."""
        able = self.able()
        what = self.random.choice(("join", "leave", "kill", "pause", "pause"))
        if what == "join" or len(able) < 2:
            if len(self.workers) < 60:
                self.join()
            return
        worker = self.random.choice(able)
        match what:
            case "leave":
                self.leave(worker)
            case "kill":
                self.kill(worker)
            case _:
                self.pause(worker, self.random.choice((1.0, 6.0, 11.0, 30.0)))

    # -- what a worker does ----------------------------------------------------------------------------------------

    def _beat(self, worker: Worker) -> None:
        own = worker.clock(self.now)
        if worker.last_beat and own - worker.last_beat > FENCE_SECONDS:
            worker.begin_anew()
        worker.last_beat = own
        self.pulses[worker.name] = self.pulses.get(worker.name, 0) + 1
        self.at(BEAT_SECONDS * self.random.uniform(0.9, 1.1), worker, lambda: self._beat(worker))

    def _look(self, worker: Worker) -> None:
        view = self._view(worker)
        self.at(self.random.uniform(0, STALE_SECONDS), worker, lambda: self._act(worker, view))

    def _view(self, worker: Worker) -> View:
        own = worker.clock(self.now)
        for name, beat in self.pulses.items():
            if name not in worker.seen_beats or worker.seen_beats[name][0] != beat:
                worker.seen_beats[name] = (beat, own)
        live = {name for name in self.pulses if own - worker.seen_beats[name][1] < LEASE_SECONDS} | {worker.name}
        free = {
            shard_id: worker.free_since.get(shard_id, own)
            for shard_id, row in self.rows.items()
            if row.owner not in live or (row.owner == worker.name and shard_id not in worker.running)
        }
        worker.free_since = free
        held = Counter(row.owner for row in self.rows.values() if row.owner is not None)
        return View(dict(self.rows), len(self.awaited), live, dict(sorted(free.items())), held)

    def _act(self, worker: Worker, view: View) -> None:
        """Plan every stream and carry it out. A worker that was paused does so without looking again."""
        more = False
        if not worker.leaving and not worker.stuck:
            moves = self.bounds.moves
            for stream in range(self._streams):
                moves, cut = self._act_on(worker, view, stream, moves)
                more = more or cut
            self.tally.most_moves = max(self.tally.most_moves, self.bounds.moves - moves)
        for shard_id in worker.running.keys() - worker.handing:
            row = view.rows.get(shard_id)
            if row is not None and row.epoch > worker.running[shard_id]:
                del worker.running[shard_id]
        wait = 0.05 if more else CYCLE_SECONDS * self.random.uniform(0.9, 1.1)
        self.at(wait, worker, lambda: self._look(worker))

    def _act_on(self, worker: Worker, view: View, stream: int, moves: int) -> tuple[int, bool]:
        own = worker.clock(self.now)
        free = [
            Free(
                shard_id,
                ours=view.rows[shard_id].owner == worker.name
                or bool(worker.parents_read.intersection(view.rows[shard_id].shard.parents)),
                theirs=view.rows[shard_id].epoch == 0 and bool(view.rows[shard_id].shard.parents),
                waiting_seconds=own - since,
            )
            for shard_id, since in view.free_since.items()
            if self.stream_of[shard_id] == stream and shard_id not in worker.running
        ]
        owned = [s for s in worker.running if self.stream_of[s] == stream and s not in worker.handing]
        result = plan(
            free,
            owned,
            Load(len(view.rows) + view.awaited, view.held, mine=len(worker.running) - len(worker.handing)),
            me=worker.name,
            live=view.live,
            bounds=replace(self.bounds, moves=moves),
            doubted=worker.doubts.at(own),
        )
        worker.doubts.note(result.passed_over, own)
        for shard_id in result.claims:
            self._claim(worker, view.rows[shard_id])
        for shard_id in result.releases:
            self.tally.moves += 1
            self._hand_over(worker, shard_id)
        return moves - len(result.releases), result.more

    def _claim(self, worker: Worker, seen: LeaseRow) -> None:
        row = self.rows.get(seen.shard_id)
        if row is None or (row.owner, row.epoch) != (seen.owner, seen.epoch):
            self.tally.collisions += 1
            return
        self.rows[seen.shard_id] = replace(row, owner=worker.name, epoch=row.epoch + 1)
        worker.running[seen.shard_id] = row.epoch + 1
        self.tally.claims += 1
        self.tally.returned += self.left_by.pop(seen.shard_id, None) == worker.name

    def _hand_over(self, worker: Worker, shard_id: ShardId) -> None:
        worker.handing.add(shard_id)

        def release() -> None:
            worker.handing.discard(shard_id)
            epoch = worker.running.pop(shard_id, None)
            row = self.rows.get(shard_id)
            if row is not None and (row.owner, row.epoch) == (worker.name, epoch):
                self.rows[shard_id] = replace(row, owner=None)
                self.left_by[shard_id] = worker.name

        self.at(self.random.uniform(0, DRAIN_SECONDS), worker, release)

    def _save(self, worker: Worker) -> None:
        for shard_id, epoch in worker.running.items():
            row = self.rows.get(shard_id)
            accepted = row is not None and (row.owner, row.epoch) == (worker.name, epoch)
            self.tally.saves += accepted
            self.tally.refused_saves += not accepted
        self.at(1.0, worker, lambda: self._save(worker))

    # -- shards ----------------------------------------------------------------------------------------------------

    def roll(self, shard_id: ShardId) -> None:
        """A shard's reader reaches its end; its child is listed a moment later, and found by that reader first."""
        reader = next((worker for worker in self.able() if shard_id in worker.running), None)
        if reader is None:
            return
        del self.rows[shard_id], reader.running[shard_id]
        reader.handing.discard(shard_id)
        reader.parents_read.add(shard_id)
        self.awaited[shard_id] = reader.name
        child = ShardId(f"{shard_id}+")
        self.stream_of[child] = self.stream_of[shard_id]

        def found() -> None:
            self._act_on(reader, self._view(reader), self.stream_of[child], 0)

        def listed() -> None:
            del self.awaited[shard_id]
            self.rows[child] = LeaseRow(Shard(child, (shard_id,)))
            self.at(0.0, reader, found)

        self.at(self.random.uniform(0, 1), None, listed)

    # -- what must hold --------------------------------------------------------------------------------------------

    def savers(self) -> int:
        """The greatest number of workers that could now store a checkpoint of one and the same shard."""
        return self._most(lambda worker, shard_id, epoch: not self.conditional or self._holds(worker, shard_id, epoch))

    def senders(self) -> int:
        """The greatest number of workers that could now send writes of one and the same shard."""
        return self._most(
            lambda worker, _, __: not self.fenced or worker.clock(self.now) - worker.last_beat < FENCE_SECONDS
        )

    def _holds(self, worker: Worker, shard_id: ShardId, epoch: int) -> bool:
        row = self.rows.get(shard_id)
        return row is not None and (row.owner, row.epoch) == (worker.name, epoch)

    def _most(self, may: Callable[[Worker, ShardId, int], bool]) -> int:
        counts = Counter(
            shard_id
            for worker in self.workers
            if not worker.dead
            for shard_id, epoch in worker.running.items()
            if may(worker, shard_id, epoch)
        )
        return max(counts.values(), default=0)

    def unread(self) -> list[ShardId]:
        """Shards that no worker reads that could store a checkpoint of them."""
        read = {
            shard_id
            for worker in self.able()
            if self.now >= worker.paused_until
            for shard_id, epoch in worker.running.items()
            if self._holds(worker, shard_id, epoch)
        }
        return [shard_id for shard_id in self.rows if shard_id not in read]

    def loads(self) -> list[int]:
        """How many shards each worker holds that is able to hold any."""
        return sorted(len(worker.running) for worker in self.able() if not worker.stuck)
