"""`replicator leases list` and `release`, shown."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from replicator.cli.output import note, print_json, print_rows, shown_position, shown_time
from replicator.cli.running import loaded, on_group
from replicator.domain.errors import EXIT_STOPPED
from replicator.domain.verdict.kinds import counted, were
from replicator.operations import leases
from replicator.operations.group import ALIVE, SHOW_SECONDS, SILENT, UNKNOWN
from replicator.operations.leases import LeaseFilter, Leases, ListedShard, ListedStream, ListedWorker, ReleaseRequest

_WORKERS = ("worker", "is", "heartbeat:2", "shards", "admin:1")
_STREAMS = ("stream", "discoverer:2", "is:3", "shards", "finished", "rules:1")
_SHARDS = ("stream", "shard", "owner", "is:2", "epoch:3", "state", "positions:5", "found:4")


def list_leases(config: Path | None, chosen: LeaseFilter, *, as_json: bool) -> int:
    """Print workers, streams and shards."""
    found = on_group(loaded(config), lambda group: leases.list_leases(group, chosen), longest=SHOW_SECONDS)
    if as_json:
        print_json(found)
        return EXIT_STOPPED
    print_rows(_WORKERS, map(_worker_row, found.workers), one_line=True)
    sys.stdout.write("\n")
    print_rows(_STREAMS, map(_stream_row, found.streams), one_line=True)
    sys.stdout.write("\n")
    print_rows(_SHARDS, map(_shard_row, found.shards), one_line=True)
    for line in _notes(found):
        note(line)
    return EXIT_STOPPED


def _worker_row(worker: ListedWorker) -> list[str]:
    beat = "none" if worker.heartbeat is None else str(worker.heartbeat)
    return [worker.worker, worker.is_, beat, str(worker.shards), worker.admin]


def _stream_row(stream: ListedStream) -> list[str]:
    return [
        stream.stream.where + (" (drained)" if stream.drained else " (left)" if stream.left else ""),
        stream.discoverer or "none",
        stream.discoverer_is,
        str(stream.shards),
        str(stream.finished),
        ", ".join(stream.rules),
    ]


def _shard_row(shard: ListedShard) -> list[str]:
    positions = [f"{target}: {shown_position(position)}" for target, position in shard.positions.items()]
    return [
        shard.stream.where,
        shard.shard,
        shard.owner or "none",
        shard.owner_is,
        str(shard.epoch),
        f"{shard.state} for {', '.join(shard.waits_for)}" if shard.waits_for else shard.state,
        ", ".join(positions) or "none",
        shown_time(shard.found_at),
    ]


def _notes(found: Leases) -> Iterator[str]:
    yield from found.unreadable
    if not (found.workers or found.streams or found.shards or found.unreadable):
        yield "no worker, stream or shard was found; `replicator run` starts a worker."
    for pause in found.paused:
        yield f"rule {pause.rule} is paused since {shown_time(pause.since)}{f': {pause.note}' if pause.note else '.'}"
    alive = any(worker.is_ in {ALIVE, UNKNOWN} for worker in found.workers)
    for worker in found.workers:
        if worker.is_ == SILENT and worker.shards:
            takers = "other workers take them over" if alive else "no other worker is alive to take them over"
            yield f"worker {worker.worker} is silent and owns {counted(worker.shards, 'shard')}; {takers}."
    if found.hidden_finished:
        yield f"hidden: {counted(found.hidden_finished, 'finished shard')}; --all shows them."


def release_leases(config: Path | None, request: ReleaseRequest, *, as_json: bool) -> int:
    """Take shards from their owners and print which."""
    request.check()
    settings = loaded(config)
    released = on_group(settings, lambda group: leases.release(group, request))
    if as_json:
        print_json({"group": settings.group, "released": released})
        return EXIT_STOPPED
    for entry in released:
        sys.stdout.write(f"{entry.stream.table} {entry.shard}: taken from {entry.owner}, epoch {entry.epoch}.\n")
    what = "Workers claim them again, possibly the same ones." if released else "The shards named had no owner."
    note(f"{counted(len(released), 'shard')} {were(len(released))} released. {what}")
    return EXIT_STOPPED
