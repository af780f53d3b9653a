"""A world in which things stop for good: whatever happens, a rule that does not move has a reason reported.

Users write a marker to every open shard now and then; shards roll, split, merge, are hidden, leave the stream with
records in them; streams are replaced, disabled or dropped; rules are paused; calls fail or never return; rows are
deleted, unreadable, or owned by a worker that does not know; seats are left to workers that do not list. A rule *owes*
a marker until it arrived at every target, or a gap was recorded for what its shard held. When nothing moved for a rule
that owes something for `BOUND` seconds, some living process that runs the rule must have published a reason.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from replicator.domain.errors import Unreachable, WorldMismatch
from replicator.domain.identifiers import RuleName, ShardId, WorkerId
from replicator.domain.rules import Rule
from replicator.domain.shards.leases import Seat, StreamRef
from replicator.domain.targets import TargetId
from replicator.domain.values import replace
from replicator.engine.limits import Limits
from replicator.laboratory.memory import Faults
from tests.engine.world import AP, CA, EU, ORDERS, Process, World, key_of, rule, stream_ref, target

ORDERS_RULE = rule("orders", target("orders", EU))
BOTH = rule("orders", target("orders", EU), target("orders", AP))
COPIES = rule("copies", target("copies", CA))

LIMITS = Limits(
    poll_seconds=1.0,
    idle_seconds=4.0,
    backoff_seconds=10.0,
    discovery_seconds=10.0,
    heartbeat_seconds=4.0,
    lease_seconds=15.0,
    watch_seconds=2.0,
    drained_seconds=10.0,
    stall_seconds=30.0,
)
BOUND = 150.0
"""Twice the watchdog's patience, a look, and what a take-over takes."""

EVERY, TURN, RECOVERY = 10.0, 360.0, 900.0

CALLS = (
    "state", "claim", "save", "release", "forget", "take_seat", "discover", "mark_vanished", "members", "beat",
    "paused", "start", "starts", "streams", "remember_stream", "record_gap", "acknowledged",
)  # fmt: skip
STREAM_CALLS = ("GetRecords", "GetShardIterator", "DescribeStream", "ListStreams", "DescribeTable")


@dataclass
class Marker:
    """A record that must arrive; `key` is unique."""

    key: str
    ref: StreamRef
    shard: ShardId
    number: int


@dataclass
class Standstills:
    """One seed's world and what becomes of it."""

    seed: int
    outstanding: dict[TargetId, list[Marker]] = field(default_factory=dict)
    """Markers that did not arrive yet, by target."""
    keys_written: list[str] = field(default_factory=list)
    processes: list[Process] = field(default_factory=list)
    bystanders: list[Process] = field(default_factory=list)
    heals: list[Callable[[], None]] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    """What was done to this world, for people."""
    waited: float = 0.0
    """The longest time that a rule which owed something stood still without a reason."""

    def __post_init__(self) -> None:
        self.dice = Random(self.seed)
        self.world = World("s0", "s1", seed=self.seed)
        self.world.registry.faults.pause = self.world.coordination.faults.pause = None
        self.shards, self.keys, self.streams = itertools.count(2), itertools.count(), itertools.count(2)
        self.rules: tuple[Rule, ...] = (self.dice.choice([ORDERS_RULE, BOTH]), COPIES)
        self.seen: dict[object, tuple[object, float]] = {}
        self.parents: dict[ShardId, tuple[ShardId, ...]] = {}
        self.left: dict[tuple[StreamRef, ShardId], list[tuple[float, float]]] = {}
        """Records that left the stream: up to which number, and when."""

    # -- processes -------------------------------------------------------------------------------------------------

    def start(self, *rules: Rule) -> None:
        self.processes.append(self.world.process(*(rules or self.rules), limits=LIMITS).start())

    async def end(self) -> None:
        for process in (*self.processes, *self.bystanders):
            await process.kill()
        self.processes.clear()
        self.bystanders.clear()

    # -- what is written -------------------------------------------------------------------------------------------

    def write(self) -> None:
        """A marker for every open shard of the present stream."""
        for shards in self.world.streams._shards.values():
            self.parents.update({name: shard.parents for name, shard in shards.items()})
        wanted = set(self.world.routes)
        for _ in range(400):
            if not wanted:
                return
            key = f"m{next(self.keys)}"
            shard = self.world.shard_of(key_of(key))
            if shard not in wanted:
                continue
            wanted.discard(shard)
            held = self.world.streams._shards.get(self.world.ref.arn, {}).get(shard)
            if held is None or held.closed:
                continue
            self.world.put(key, 0)
            marker = Marker(key, self.world.ref, shard, held.records[-1].number)
            self.keys_written.append(key)
            for place in (*BOTH.targets, *COPIES.targets):
                self.outstanding.setdefault(place.target_id, []).append(marker)

    # -- what happens ----------------------------------------------------------------------------------------------

    def act(self) -> None:
        """Something that may stop a rule."""
        deed = self.dice.choice([
            self.roll, self.roll, self.split, self.merge, self.hide, self.misreport, self.remove, self.trim,
            self.replace_stream, self.disable, self.drop, self.pause, self.outage, self.poison, self.fail, self.hang,
            self.kill, self.join, self.drift, self.add_target, self.steal_seat, self.steal_row, self.delete_row,
            self.unreadable, self.only_children, self.bystander, self.bystander, self.suspend, self.silent_replica,
        ])  # fmt: skip
        self.done.append(f"{asyncio.get_running_loop().time():.0f}: {deed.__name__}")
        deed()

    def _listed(self) -> dict[ShardId, object]:
        return dict(self.world.streams._shards.get(self.world.ref.arn, {}))

    def _open(self) -> list[ShardId]:
        return sorted(set(self.world.routes) & self._listed().keys())

    def roll(self) -> None:
        if self._open():
            self.world.roll(self.dice.choice(self._open()), f"s{next(self.shards)}")

    def split(self) -> None:
        if self._open():
            self.world.roll(self.dice.choice(self._open()), f"s{next(self.shards)}", f"s{next(self.shards)}")

    def merge(self) -> None:
        if len(self._open()) > 1:
            self.world.merge(self.dice.sample(self._open(), 2), f"s{next(self.shards)}")

    def hide(self) -> None:
        """A shard rolls, and its child is listed late or never; or a shard that is known is left out."""
        if self._listed():
            if self.dice.random() < 0.7:
                self.roll()
            self.world.streams.hide(self.world.ref, self.dice.choice([*self._listed(), *self.world.routes]))
            self._later(self.world.reveal_all)

    def misreport(self) -> None:
        if self._listed():
            shard = self.dice.choice(sorted(self._listed()))
            told = self.world.streams._shards[self.world.ref.arn][shard].listed()
            self.world.streams.misreport(self.world.ref, replace(told, closed=False, parents=()))

    def remove(self) -> None:
        closed = [name for name, shard in self._listed().items() if shard.closed]  # type: ignore[attr-defined]
        if closed:
            shard = self.dice.choice(closed)
            self.world.streams.remove_shard(self.world.ref, shard)
            self._leave(self.world.ref, shard, float("inf"))

    def trim(self) -> None:
        if self._listed():
            shard = self.dice.choice(sorted(self._listed()))
            records = len(self.world.streams._shards[self.world.ref.arn][shard].records)
            self.world.streams.trim(self.world.ref, shard, keep=self.dice.randint(0, records))
            self._leave(self.world.ref, shard, self.world.streams._shards[self.world.ref.arn][shard].trimmed_below)

    def _leave(self, ref: StreamRef, shard: ShardId, number: float) -> None:
        self.left.setdefault((ref, shard), []).append((number, self.world.now()))

    def replace_stream(self) -> None:
        world, old = self.world, self.world.ref
        for shard in self._open():
            world.streams.close(old, shard)
        number = next(self.streams)
        world.ref = stream_ref(number)
        world.streams.enable(world.ref)
        names = [f"n{number}-{each}" for each in range(2)]
        for name in names:
            world.streams.add_shard(world.ref, ShardId(name))
        world.route_to(*names)
        items = world.source.items
        world.source = world.new_source(world.ref, first_sequence=1000 * number)
        world.source.items.update(items)
        if self.dice.random() < 0.3:
            self._later(lambda: self._drop(old))

    def disable(self) -> None:
        if ORDERS in self.world.streams._current:
            for shard in self._open():
                self.world.streams.close(self.world.ref, shard)
            self.world.streams.disable(ORDERS)
            self._later(self.replace_stream)

    def drop(self) -> None:
        """The present stream is gone, and comes back as another one."""
        ref = self.world.ref
        if ref.arn in self.world.streams._shards:
            self.replace_stream()
            self._drop(ref)

    def _drop(self, ref: StreamRef) -> None:
        if ref.arn in self.world.streams._shards:
            for shard in self.world.streams._shards[ref.arn]:
                self._leave(ref, shard, float("inf"))
            self.world.streams.drop(ref)

    def pause(self) -> None:
        name = self.dice.choice(self.rules).name
        self.world.membership.pause(name)
        self._later(lambda: self.world.membership.resume(name))

    def outage(self) -> None:
        self._outage(self.world.regions[self.dice.choice([EU, AP, CA])].faults)

    def _outage(self, faults: Faults) -> None:
        faults.outage = Unreachable
        self._later(lambda: setattr(faults, "outage", None))

    def poison(self) -> None:
        region = self.world.regions[self.dice.choice([EU, AP, CA])]
        key = key_of(self.dice.choice(self.keys_written[-5:]))
        region.poison(key, "it is too large")
        self._later(lambda: region.cure(key))

    def fail(self) -> None:
        self._stop_calls(hang=False)

    def hang(self) -> None:
        self._stop_calls(hang=True)

    def _stop_calls(self, *, hang: bool) -> None:
        """Some calls fail from now on, or never return."""
        world = self.world
        calls = set(self.dice.sample([*CALLS, *STREAM_CALLS], self.dice.choice([1, 1, 2])))
        until = asyncio.Event()
        self.done[-1] += f" {sorted(calls)}"

        async def pause(call: str) -> None:
            if call in calls and not until.is_set():
                if not hang:
                    raise Unreachable(f"{call} is refused.")
                await until.wait()

        ports = (world.coordination, world.registry, world.membership, world.streams)
        for port in ports:
            port.faults.pause = pause

        def heal() -> None:
            until.set()

        self._later(heal)

    def kill(self) -> None:
        if len(self.processes) > 1:
            process = self.processes.pop(self.dice.randrange(len(self.processes)))
            assert process.task is not None
            process.task.cancel()

    def join(self) -> None:
        if len(self.processes) < 3:
            self.start()

    def drift(self) -> None:
        """A worker with an older configuration joins, until the turn is over."""
        if len(self.processes) < 3:
            self.start(ORDERS_RULE)
            process = self.processes[-1]

            def end() -> None:
                if process in self.processes:
                    self.processes.remove(process)
                    assert process.task is not None
                    process.task.cancel()

            self._later(end)

    def add_target(self) -> None:
        """Every worker is restarted with another replica."""
        for process in self.processes:
            assert process.task is not None
            process.task.cancel()
        count = len(self.processes)
        self.processes.clear()
        self.rules = (BOTH, COPIES)
        for _ in range(count):
            self.start()

    def bystander(self) -> None:
        """A worker of the group that lives and reads nothing holds a row, or the seat and lists nothing."""
        process = self.world.process(*self.rules, limits=LIMITS)
        process.sources.put(())
        self.bystanders.append(process.start())
        asyncio.get_running_loop().call_later(8, self._give, process)

    def _give(self, process: Process) -> None:
        began = process.observer.of("session_began")
        if not began:
            return
        owner, rows, seats = began[-1][0], self.world.coordination._rows, self.world.coordination._seats
        if self.dice.random() < 0.7:
            for stream, seat in seats.items():
                seats[stream] = Seat(owner, seat.epoch + 1)
        elif rows:
            place = self.dice.choice(sorted(rows, key=str))
            rows[place] = replace(rows[place], owner=owner, epoch=rows[place].epoch + 1, serves=frozenset())

            def end() -> None:
                assert process.task is not None
                process.task.cancel()

            self._later(end)

    def suspend(self) -> None:
        if self.processes:
            self.dice.choice(self.processes).suspend(self.dice.uniform(5, 200))

    def silent_replica(self) -> None:
        """A replica takes requests and never answers."""
        faults, until = self.world.regions[self.dice.choice([EU, AP, CA])].faults, asyncio.Event()

        async def pause(call: str) -> None:
            await until.wait()

        faults.pause = pause
        self._later(until.set)

    def steal_seat(self) -> None:
        """The seat is with a worker that lives and does not know."""
        seats = self.world.coordination._seats
        living = self._living()
        for stream, seat in seats.items():
            seats[stream] = Seat(self.dice.choice([*living, WorkerId("ghost")]), seat.epoch + 1)

    def steal_row(self) -> None:
        """A row is with a worker that does not know, alive or not."""
        rows = self.world.coordination._rows
        living = self._living()
        if rows:
            place = self.dice.choice(sorted(rows, key=str))
            owner = self.dice.choice([*living, WorkerId("ghost")])
            rows[place] = replace(rows[place], owner=owner, epoch=rows[place].epoch + 1)

    def _living(self) -> list[WorkerId]:
        return [event[0] for process in self.processes for event in process.observer.of("session_began")[-1:]]

    def delete_row(self) -> None:
        rows = self.world.coordination._rows
        if rows:
            del rows[self.dice.choice(sorted(rows, key=str))]

    def unreadable(self) -> None:
        """A row cannot be read, so a shard has none."""
        self.delete_row()
        self.world.coordination.unreadable = WorldMismatch("A row is corrupt.")
        self._later(lambda: setattr(self.world.coordination, "unreadable", None))

    def only_children(self) -> None:
        self.world.streams.filters_children = not self.world.streams.filters_children

    def _later(self, heal: Callable[[], None]) -> None:
        """What takes a deed back, when the turn is over."""
        self.heals.append(heal)

    def calm(self) -> None:
        """Take everything back that can be taken back; what left the stream stays away."""
        for heal in self.heals:
            heal()
        self.heals.clear()
        self.world.reveal_all()
        for arn, shards in self.world.streams._shards.items():
            self.world.streams.correct(replace(self.world.ref, arn=arn), *shards)
        if not any(self._runs_all(process) for process in self.processes):
            self.start()

    def _runs_all(self, process: Process) -> bool:
        return [source.rules for source in process.sources.now] == [self.rules]

    # -- what must hold --------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Whether each rule moves on each shard of which it owes something, or a reason is reported."""
        now, last, self.seen = asyncio.get_running_loop().time(), self.seen, {}
        for each in self.rules:
            is_told = bool(self.reasons(each.name)) or not self.processes
            for place in {(marker.ref, marker.shard) for marker in self.owes(each)}:
                state = self._state(each, *place)
                before, since = last.get((each.name, place), (None, now))
                if before != state or is_told:
                    since = now
                self.seen[each.name, place] = state, since
                self.waited = max(self.waited, now - since)
                assert now - since <= BOUND, f"{place} {self._story(each)}"

    def _state(self, each: Rule, ref: StreamRef, shard: ShardId) -> object:
        """What changes when a rule moves towards a shard's records: there, on its ancestors, and on older streams."""
        line = self._line(shard)
        return {
            (arn, name, target.target_id): row.checkpoints.get(target.target_id)
            for ((_, arn), name), row in self.world.coordination._rows.items()
            for target in each.targets
            if (arn == ref.arn and name in line)
            or (arn != ref.arn and int(arn.split("/")[1]) < int(ref.arn.split("/")[1]))
        }

    def owes(self, each: Rule) -> list[Marker]:
        """Markers that did not arrive, and that no gap tells of. What no living process runs, nothing can speak for."""
        known = {
            place.target_id
            for process in self.processes
            for source in process.sources.now
            for run in source.rules
            for place in run.targets
        }
        owed = []
        for place in each.targets:
            held = {key for key, _ in self.world.regions[place.region].items()}
            open_markers = self.outstanding.setdefault(place.target_id, [])
            open_markers[:] = [each for each in open_markers if key_of(each.key) not in held]
            if place.target_id in known:
                owed += [each for each in open_markers if self._is_owed(each, place.target_id)]
        return owed

    def _is_owed(self, marker: Marker, target_id: TargetId) -> bool:
        start = self.world.registry.started(marker.ref).get(target_id)
        if start is None and self.world.ref != marker.ref:
            return False  # it never read that stream
        left = self.left.get((marker.ref, marker.shard), ())
        if any(marker.number <= number and (start is None or at <= start.started_at) for number, at in left):
            return False  # no target is owed what left the stream before it began
        if not self._is_knowable(marker.ref, marker.shard):
            return False
        return not any(
            gap.target_id == target_id
            and gap.stream == marker.ref
            and (
                gap.shard_id == "every shard" or (gap.shard_id == marker.shard and not gap.after.covers(marker.number))
            )
            for gap in self.world.registry.gaps
        )

    def _is_knowable(self, ref: StreamRef, shard: ShardId) -> bool:
        """Whether anything shows that a shard is there: it, or one that it comes from, has a row or is listed.

        A shard without a known parent that no listing has ever named, or whose row was deleted by hand since, cannot be
        known of by anything that reads listings and rows.
        """
        listed = self.world.streams._shards.get(ref.arn, {})
        rows = self.world.coordination._rows
        return any(
            ((ref.region, ref.arn), name) in rows or (name in listed and not listed[name].hidden)
            for name in self._line(shard)
        )

    def _line(self, shard: ShardId) -> set[ShardId]:
        """A shard and all that it comes from."""
        line, left = set[ShardId](), [shard]
        while left:
            name = left.pop()
            line.add(name)
            left += self.parents.get(name, ())
        return line

    def reasons(self, name: RuleName) -> list[str]:
        """What living processes tell of a rule."""
        found = []
        for process in self.processes:
            observer = process.observer
            found += [f"blocked {place}" for place in observer.blocked_keys if place.startswith(f"{name}/")]
            found += [f"{what}: {error.message}" for what, error in observer.troubles.items()]
            found += [each.reason for standing in observer.standing.values() for each in standing if each.rule == name]
            found += [f"stalled {shard}" for shard, target in observer.stalls if target.startswith(f"{name}/")]
        return found + (["paused"] if name in self.world.membership._paused else [])

    def _story(self, each: Rule) -> str:
        rows = {
            place[1]: (row.owner, row.epoch, dict(row.checkpoints), row.shard.parents, row.shard.closed, row.vanished)
            for place, row in self.world.coordination._rows.items()
        }
        return "\n".join([
            f"seed {self.seed}, {asyncio.get_running_loop().time():.0f}: rule {each.name} owes {self.owes(each)[:3]}",
            f"told: {self.reasons(each.name)}",
            *self.done,
            *(f"{shard}: {row}" for shard, row in rows.items()),
            f"streams {self.world.streams._shards.keys()} known {self.world.registry._streams}",
            f"seats {self.world.coordination._seats}",
        ])  # fmt: skip

    async def live(self, turns: int) -> None:
        """Turn after turn something stops, everything is taken back, and what is owed must arrive."""
        self.start()
        if self.dice.random() < 0.5:
            self.start()
        await self._pass(30)
        for _ in range(turns):
            for _ in range(self.dice.choice([1, 1, 2, 3])):
                self.act()
                await self._pass(self.dice.choice([0, 10, 50]))
            await self._pass(TURN)
            self.calm()
            await self._recovered()
        await self.end()

    async def _pass(self, seconds: float) -> None:
        for _ in range(round(seconds / EVERY)):
            self.write()
            self.look()
            await asyncio.sleep(EVERY)

    async def _recovered(self) -> None:
        """Accept every loss until nothing is owed that was written before."""
        self.done.append(f"{asyncio.get_running_loop().time():.0f}: calm")
        wanted = set(self.keys_written)
        for _ in range(round(RECOVERY / EVERY)):
            for gap in self.world.registry.gaps:
                self.world.registry.acknowledge(gap.gap_id)
            self.write()
            self.look()
            if not any(wanted.intersection(marker.key for marker in self.owes(each)) for each in self.rules):
                return
            await asyncio.sleep(EVERY)
        raise AssertionError("".join(self._story(each) for each in self.rules))
