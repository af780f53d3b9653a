"""`replicator leases list` and `release`: who owns which shard, what it waits for, and how to take it away.

Invariant: a release raises the shard's epoch, so whoever owned it is fenced and can store nothing more there.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from replicator.cli.output import print_json, print_rows
from replicator.domain.errors import EXIT_STOPPED
from replicator.operations.errors import RequestRefused
from replicator.operations.group import (
    SILENT,
    UNKNOWN,
    Group,
    ReadStream,
    is_finished,
    loaded,
    open_group,
    rule_named,
    shown_position,
)

if TYPE_CHECKING:
    from replicator.domain.identifiers import WorkerId
    from replicator.domain.shards.leases import LeaseRow, Pulse
    from replicator.settings import Settings

FREE = "free"
FINISHED = "finished"
_WAITING = "waiting"
_TRIES = 5
_RELEASES_AT_ONCE = 16

_WORKERS = ("worker", "is", "heartbeat", "shards", "admin")
_STREAMS = ("stream", "discoverer", "is", "shards", "finished", "rules")
_SHARDS = ("stream", "shard", "owner", "is", "epoch", "state", "positions", "found")


@dataclass(frozen=True, slots=True)
class Shown:
    """Which shards to list. `owner`: the beginning of a worker's id, or `free`."""

    rule: str | None = None
    owner: str | None = None
    everything: bool = False
    fast: bool = False


def list_leases(config: Path | None, shown: Shown, *, as_json: bool) -> int:
    """Print workers, streams and shards."""
    settings = loaded(config)
    if shown.rule is not None:
        rule_named(settings, shown.rule)
    document = asyncio.run(_collect(settings, shown))
    if as_json:
        print_json(document)
        return EXIT_STOPPED
    print_rows(_WORKERS, [_worker_row(worker) for worker in document["workers"]])
    sys.stdout.write("\n")
    print_rows(_STREAMS, [_stream_row(stream) for stream in document["streams"]])
    sys.stdout.write("\n")
    print_rows(_SHARDS, [_shard_row(shard) for shard in document["shards"]])
    for line in _notes(document):
        sys.stderr.write(f"replicator: {line}\n")
    return EXIT_STOPPED


async def _collect(settings: Settings, shown: Shown) -> dict[str, Any]:
    async with open_group(settings) as group:
        pulses, streams, pauses = await asyncio.gather(
            group.membership.members(), group.streams(), group.operations.pauses()
        )
        workers = set(pulses) | set(_owners(streams))
        life = dict.fromkeys(workers, UNKNOWN) if shown.fast else await group.living(workers, pulses)
    configured = {rule.name for rule in settings.rules}
    read = [stream for stream in streams if _wanted(stream, shown)]
    shards = [shard for stream in read for shard in shards_of(stream, configured, life)]
    listed = [shard for shard in shards if _is_shown(shard, shown)]
    return {
        "group": settings.group,
        "workers": list(_workers(life, pulses, streams)),
        "paused": [{"rule": pause.rule, "since": shown_time(pause.paused_at), "note": pause.note} for pause in pauses],
        "streams": [_stream(stream, configured, life) for stream in read],
        "shards": listed,
        "hidden_finished": sum(shard["state"] == FINISHED for shard in shards) if not shown.everything else 0,
        "unreadable": [str(stream.state.unreadable.sentence) for stream in read if stream.state.unreadable],
    }


def _owners(streams: Iterable[ReadStream]) -> Iterator[WorkerId]:
    for stream in streams:
        seat = stream.state.seat
        owners = [row.owner for row in stream.state.rows.values()] + [None if seat is None else seat.owner]
        yield from (owner for owner in owners if owner is not None)


def _wanted(stream: ReadStream, shown: Shown) -> bool:
    if stream.drained and not shown.everything:
        return False
    return shown.rule is None or bool(stream.targets_of({shown.rule}))


def _is_shown(shard: Mapping[str, Any], shown: Shown) -> bool:
    if shard["state"] == FINISHED and not shown.everything:
        return False
    if shown.owner == FREE:
        return shard["owner"] is None
    return shown.owner is None or (shard["owner"] or "").startswith(shown.owner)


def shards_of(stream: ReadStream, configured: set[str], life: Mapping[WorkerId, str]) -> Iterator[dict[str, Any]]:
    """Every shard of a stream as JSON. What only rules without a configuration need holds nothing up."""
    targets = stream.targets_of(configured) or stream.targets
    rows = stream.state.rows
    finished = {shard_id for shard_id, row in rows.items() if is_finished(row, targets)}
    for shard_id, row in sorted(rows.items()):
        awaited = [parent for parent in row.shard.parents if parent in rows and parent not in finished]
        yield {
            "region": stream.stream.region,
            "table": stream.stream.table,
            "stream": stream.stream.arn,
            "shard": shard_id,
            "owner": row.owner,
            "owner_is": FREE if row.owner is None else life.get(row.owner, SILENT),
            "epoch": row.epoch,
            "state": _state(row, awaited, is_done=shard_id in finished),
            "waits_for": [] if shard_id in finished else awaited,
            "parents": list(row.shard.parents),
            "closed": row.shard.closed,
            "vanished": row.vanished,
            "found_at": shown_time(row.found_at),
            "positions": {
                target.text: shown_position(row.checkpoints.get(target)) for target in sorted(stream.targets)
            },
            "rewinds": {
                target.text: {"before": shown_time(rewind.before), "until": rewind.until.text}
                for target, rewind in sorted(row.rewinds.items())
            },
        }


def _state(row: LeaseRow, awaited: Sequence[str], *, is_done: bool) -> str:
    if is_done:
        return FINISHED
    if row.vanished:
        return "vanished"
    if awaited:
        return _WAITING
    return "closed" if row.shard.closed else "open"


def _workers(
    life: Mapping[WorkerId, str], pulses: Mapping[WorkerId, Pulse], streams: Sequence[ReadStream]
) -> Iterator[dict[str, Any]]:
    shards = Counter(row.owner for stream in streams for row in stream.state.rows.values() if row.owner is not None)
    for worker in sorted(life):
        pulse = pulses.get(worker)
        yield {
            "worker": worker,
            "is": life[worker],
            "heartbeat": None if pulse is None else pulse.beat,
            "admin": pulse.admin if pulse else "",
            "shards": shards[worker],
        }


def _stream(stream: ReadStream, configured: set[str], life: Mapping[WorkerId, str]) -> dict[str, Any]:
    seat = stream.state.seat
    discoverer = None if seat is None else seat.owner
    targets = stream.targets_of(configured) or stream.targets
    return {
        "region": stream.stream.region,
        "table": stream.stream.table,
        "stream": stream.stream.arn,
        "drained": stream.drained,
        "discoverer": discoverer,
        "discoverer_is": FREE if discoverer is None else life.get(discoverer, SILENT),
        "shards": len(stream.state.rows),
        "finished": sum(is_finished(row, targets) for row in stream.state.rows.values()),
        "rules": sorted({target.rule for target in stream.targets}),
    }


def shown_time(seconds: float) -> str | None:
    """A time in UTC; None when it is not known."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds") if seconds > 0 else None


# -- releasing -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Taken:
    """Which shards to take from their owners: one, all of a worker, or all."""

    shard: str | None = None
    stream: str | None = None
    worker: str | None = None
    everything: bool = False

    def check(self) -> None:
        """Refuse what is not exactly one choice."""
        if sum((self.shard is not None, self.worker is not None, self.everything)) != 1:
            raise RequestRefused(
                "leases release needs one of --shard, --worker and --all.", advice="Name what to release."
            )
        if self.stream is not None and self.shard is None:
            raise RequestRefused("--stream goes with --shard.", advice="Name the shard too, or leave --stream out.")

    def fits(self, stream: ReadStream, row: LeaseRow) -> bool:
        """Whether a row is meant."""
        if self.shard is not None:
            return row.shard_id == self.shard and self.stream in {None, stream.stream.arn, stream.where}
        return row.owner is not None and self.worker in {None, row.owner}


def release_leases(config: Path | None, taken: Taken, *, as_json: bool) -> int:
    """Take shards from their owners and tell which."""
    taken.check()
    settings = loaded(config)
    released = asyncio.run(_release(settings, taken))
    if as_json:
        print_json({"group": settings.group, "released": released})
        return EXIT_STOPPED
    for entry in released:
        sys.stdout.write(f"{entry['table']} {entry['shard']}: taken from {entry['owner']}, epoch {entry['epoch']}.\n")
    what = "Workers claim them anew, perhaps the same ones." if released else "Nobody owned what was named."
    sys.stderr.write(f"replicator: {len(released)} shards were released. {what}\n")
    return EXIT_STOPPED


async def _release(settings: Settings, taken: Taken) -> list[dict[str, Any]]:
    async with open_group(settings) as group:
        streams = [stream for stream in await group.streams() if not stream.drained]
        meant = [(stream, row) for stream in streams for row in stream.state.rows.values() if taken.fits(stream, row)]
        _check_meant(taken, [stream for stream, _ in meant])
        turn = asyncio.Semaphore(_RELEASES_AT_ONCE)

        async def one(stream: ReadStream, row: LeaseRow) -> dict[str, Any] | None:
            async with turn:
                return await _take(group, stream, row)

        outcomes = await asyncio.gather(*(one(stream, row) for stream, row in meant))
    return [outcome for outcome in outcomes if outcome is not None]


def _check_meant(taken: Taken, streams: Sequence[ReadStream]) -> None:
    if taken.shard is None:
        return
    if not streams:
        raise RequestRefused(
            f"No stream of this group has a shard {taken.shard}.", advice="`replicator leases list --all` lists them."
        )
    if len(streams) > 1:
        names = ", ".join(f"{stream.where} ({stream.stream.arn})" for stream in streams)
        raise RequestRefused(
            f"{len(streams)} streams have a shard {taken.shard}: {names}.",
            advice="Add --stream with the ARN, or with region:table.",
        )


async def _take(group: Group, stream: ReadStream, row: LeaseRow) -> dict[str, Any] | None:
    """Release one shard from the owner that was seen; None when that one lost it meanwhile."""
    owner = row.owner
    for _ in range(_TRIES):
        if row.owner is None or row.owner != owner:
            return None
        if await group.operations.release_lease(stream.stream, row):
            return {
                "region": stream.stream.region,
                "table": stream.stream.table,
                "stream": stream.stream.arn,
                "shard": row.shard_id,
                "owner": owner,
                "epoch": row.epoch + 1,
            }
        fresh = (await group.coordination.state(stream.stream)).rows.get(row.shard_id)
        if fresh is None:
            return None
        row = fresh
    return None


# -- showing -------------------------------------------------------------------------------------------------------


def _worker_row(worker: Mapping[str, Any]) -> list[str]:
    beat = "none" if worker["heartbeat"] is None else str(worker["heartbeat"])
    return [worker["worker"], worker["is"], beat, str(worker["shards"]), worker["admin"]]


def _stream_row(stream: Mapping[str, Any]) -> list[str]:
    return [
        f"{stream['region']}:{stream['table']}" + (" (drained)" if stream["drained"] else ""),
        stream["discoverer"] or "nobody",
        stream["discoverer_is"],
        str(stream["shards"]),
        str(stream["finished"]),
        ", ".join(stream["rules"]),
    ]


def _shard_row(shard: Mapping[str, Any]) -> list[str]:
    state = shard["state"]
    if shard["waits_for"]:
        state = f"{state} for {', '.join(shard['waits_for'])}"
    positions = [f"{target}: {position or 'none'}" for target, position in shard["positions"].items()]
    return [
        f"{shard['region']}:{shard['table']}",
        shard["shard"],
        shard["owner"] or "nobody",
        shard["owner_is"],
        str(shard["epoch"]),
        state,
        ", ".join(positions) or "none",
        shard["found_at"] or "",
    ]


def _notes(document: Mapping[str, Any]) -> Iterator[str]:
    yield from document["unreadable"]
    for pause in document["paused"]:
        note = f": {pause['note']}" if pause["note"] else "."
        yield f"rule {pause['rule']} is paused since {pause['since']}{note}"
    silent = [worker for worker in document["workers"] if worker["is"] == SILENT and worker["shards"]]
    for worker in silent:
        yield f"worker {worker['worker']} is silent and owns {worker['shards']} shards; living ones take them over."
    if document["hidden_finished"]:
        yield f"{document['hidden_finished']} finished shards are hidden; --all shows them."
