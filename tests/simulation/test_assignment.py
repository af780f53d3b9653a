"""Workers join, leave, die and stand still, with clocks that differ and views that are stale.

At all times at most one worker can store a checkpoint of a shard, and one can send its writes; soon after the last
disturbance every shard is read, loads differ by one at most, and then nothing moves any more.
"""

from __future__ import annotations

import math
from functools import partial
from random import Random

import pytest

from replicator.domain.identifiers import ShardId
from replicator.domain.shards.assignment import Bounds, Doubts
from tests.seeds import first, seeds
from tests.simulation.lease_world import CYCLE_SECONDS, DRAIN_SECONDS, LEASE_SECONDS, STALE_SECONDS, Tally, World

ROUND_SECONDS = 1.1 * CYCLE_SECONDS + STALE_SECONDS
"""The longest time between two actions of a worker."""

EXPIRY_SECONDS = 1.2 * LEASE_SECONDS + ROUND_SECONDS
"""After it, everybody knows of a death: a worker may have looked long before, and clocks may run slow."""

OWNED_SECONDS = EXPIRY_SECONDS + 2 * Bounds().patience_seconds + DRAIN_SECONDS + 3 * ROUND_SECONDS
"""After it, every shard is read: the doubling of helpers reaches everybody after a few rounds."""

DOUBT_SECONDS = 120.0
"""After it, a worker that stood still twice is trusted again."""


def stepped(world: World, seconds: float, unread_seconds: float = math.inf) -> None:
    """Let time pass, and judge every half second; no shard may be unread for longer than that at a stretch."""
    end = world.now + seconds
    since: dict[ShardId, float] = {}
    while world.now < end:
        world.run(0.5)
        since = {shard_id: since.get(shard_id, world.now) for shard_id in world.unread()}
        assert all(world.now - began <= unread_seconds for began in since.values())
        assert world.savers() <= 1, "two workers can store checkpoints of one shard"
        assert world.senders() <= 1, "two workers can send writes of one shard"
        assert world.tally.most_moves <= world.bounds.moves


def balanced_seconds(world: World, shards: int) -> float:
    """A bound for loads to become even: each worker above its share hands over up to `moves` in two rounds.

    Who stood still may be doubted for a while.
    """
    rounds = 2 * (shards // world.bounds.moves + 1)
    return OWNED_SECONDS + rounds * (ROUND_SECONDS + DRAIN_SECONDS) + DOUBT_SECONDS


def assert_settles(world: World) -> None:
    """Whatever happened so far: all is read soon, then even, then quiet."""
    shards = len(world.rows)
    stepped(world, balanced_seconds(world, shards), OWNED_SECONDS)
    assert world.unread() == []
    loads = world.loads()
    assert sum(loads) == shards
    assert loads[-1] - loads[0] <= 1, "loads are not even"
    world.tally = Tally()
    stepped(world, 60)
    assert (world.tally.claims, world.tally.moves, world.tally.refused_saves) == (0, 0, 0), "no rest at the end"


def started(seed: int, streams: list[int], workers: int, *, fenced: bool = True, conditional: bool = True) -> World:
    world = World(seed, streams, fenced=fenced, conditional=conditional)
    for _ in range(workers):
        world.join()
    return world


def random_world(seed: int) -> World:
    random = Random(seed)
    streams, most = random.choice((([1], 50), ([7], 12), ([64], 20), ([300], 12), ([1] * 40, 8), ([25] * 4, 12)))
    return started(seed, streams, random.randint(2, most))


@pytest.mark.parametrize("seed", seeds(1, 5))
def test_every_shard_is_read_by_one_worker_soon_after_the_last_disturbance(seed: int) -> None:
    world = random_world(seed)
    for _ in range(12):
        stepped(world, world.random.uniform(0, 12))
        world.disturb()
    stepped(world, max(0.0, *(worker.paused_until - world.now for worker in world.workers)))
    assert_settles(world)


@pytest.mark.parametrize(
    ("streams", "workers"),
    first(3, [([300], 2), ([10] * 10, 7), ([3], 7), ([300], 7), ([64], 50), ([1] * 60, 5)]),
    ids=lambda value: f"{len(value)} streams" if isinstance(value, list) else f"{value} workers",
)
def test_what_a_change_costs(streams: list[int], workers: int) -> None:
    world = started(1, streams, workers)
    shards = sum(streams)
    stepped(world, OWNED_SECONDS)
    start = world.tally
    assert start.claims <= shards + workers
    assert start.collisions <= shards // 10 + 2

    world.tally = Tally()
    world.join()
    stepped(world, balanced_seconds(world, shards))
    join = world.tally
    fair = shards // (workers + 1)
    assert fair <= join.moves <= fair + workers
    assert join.returned <= 2, "who hands over does not claim again"
    assert world.loads()[-1] - world.loads()[0] <= 1

    world.tally = Tally()
    for shard_id in list(world.rows):
        world.at(world.random.uniform(0, 5), None, partial(world.roll, shard_id))
    stepped(world, 60)
    roll = world.tally
    assert (roll.moves, roll.collisions, roll.claims) == (0, 0, shards), "children stay where their parents were read"

    world.tally = Tally()
    world.kill(world.workers[0])
    assert_settles(world)
    print(  # noqa: T201 - shown by `pytest -rP`
        f"{shards} shards, {workers} workers: start {start.claims} claims, {start.collisions} collisions;"
        f" join {join.moves} moves of {fair}; roll {roll.claims} claims, {roll.moves} moves"
    )


@pytest.mark.parametrize("workers", first(1, [2, 5]))
def test_a_worker_that_beats_and_does_nothing_starves_no_shard_and_moves_few(workers: int) -> None:
    world = started(3, [40], workers)
    stepped(world, OWNED_SECONDS)
    world.tally = Tally()
    world.join().stuck = True
    stepped(world, 600)
    assert world.unread() == []
    assert world.tally.moves <= 8 * 5 * workers, "a few tries, at ever greater distances"
    world.workers[-1].stuck = False
    stepped(world, 1200)
    loads = world.loads()
    assert loads[-1] - loads[0] <= 1, "once it works it gets its share"


def test_without_doubts_shards_would_go_to_and_fro_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Doubts, "at", lambda self, now: frozenset())
    world = started(3, [40], 2)
    stepped(world, OWNED_SECONDS)
    world.join().stuck = True
    stepped(world, 300)
    assert world.tally.moves > 8 * 5 * 2
    assert world.tally.returned > 20


def test_a_worker_that_wakes_up_long_after_its_lease_changes_nothing_and_begins_anew() -> None:
    world = started(4, [30], 3)
    stepped(world, OWNED_SECONDS)
    sleeper = world.workers[0]
    name = sleeper.name
    world.pause(sleeper, 40)
    stepped(world, 39)
    assert world.unread() == []
    stepped(world, 2 * ROUND_SECONDS)
    assert sleeper.name != name
    assert_settles(world)
    assert len(sleeper.running) == 10


@pytest.mark.parametrize("protection", ["fenced", "conditional"])
def test_without_a_protection_two_workers_would_work_on_one_shard(protection: str) -> None:
    found = 0
    for seed in range(10):
        world = started(seed, [20], 3, fenced=protection != "fenced", conditional=protection != "conditional")
        world.run(OWNED_SECONDS)
        world.pause(world.workers[0], 15)
        for _ in range(200):
            world.run(0.1)
            found += max(world.savers(), world.senders()) > 1
    assert found
