"""`replicator status`, shown once or again every second."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from replicator.cli.following import shown_span
from replicator.cli.output import note, print_json, print_rows, rich_table
from replicator.cli.running import loaded, on_group
from replicator.domain.errors import EXIT_STOPPED, EXIT_UNREACHABLE, EXIT_USAGE
from replicator.domain.progress import END
from replicator.domain.shards.unread import LOST
from replicator.domain.targets import TargetKind
from replicator.operations.away_status import RegionStatus
from replicator.operations.group import SHOW_SECONDS
from replicator.operations.jobs import ListedJob
from replicator.operations.pacing_status import PacingStatus
from replicator.operations.parked_rows import regions_of
from replicator.operations.parked_status import ParkedStatus
from replicator.operations.status import (
    FINISHED,
    GroupStatus,
    RuleStatus,
    ShardStatus,
    TargetStatus,
    status,
)

if TYPE_CHECKING:
    from replicator.operations.group import Group

_EVERY_SECONDS = 1.0
_LONGEST = 18
_LOST = "lost: no worker may read it while the coordination table does not answer"
_COLUMNS = ("rule", "target", "shard", "owner", "epoch", "position", "lag", "progress", "records", "state")


def show_status(config: Path | None, *, watch: bool, everything: bool, as_json: bool) -> int:
    """Print the status once, or again and again until Ctrl-C. `everything`: what is not read any more, too.

    JSON always has everything. While the coordination table does not answer, what is stored cannot be known: what
    workers say is shown. The exit code says that it did not, or that what is owed in a region cannot be known.
    """
    if watch and as_json:
        note("--watch and --json exclude each other: a script asks again by itself.")
        return EXIT_USAGE
    settings = loaded(config)
    if watch:
        with contextlib.suppress(KeyboardInterrupt):  # the way to end it
            on_group(
                settings,
                lambda group: _watch(group, everything=everything),
                regions_of(settings),
                longest=SHOW_SECONDS,
            )
        return EXIT_STOPPED
    found = on_group(settings, status, regions_of(settings), longest=SHOW_SECONDS)
    if as_json:
        print_json(found)
    else:
        for line in _notes(found, everything=everything):
            note(line)
        print_rows(_COLUMNS, _rows(found, everything=everything))
    return EXIT_UNREACHABLE if found.coordination_error or found.unanswered else EXIT_STOPPED


async def _watch(group: Group, *, everything: bool) -> None:
    if not sys.stdout.isatty():
        while True:
            print_rows(_COLUMNS, [*_rows(await status(group), everything=everything), ()])
            sys.stdout.flush()
            await asyncio.sleep(_EVERY_SECONDS)
    from rich.console import Group as Lines
    from rich.live import Live

    with Live(screen=False, auto_refresh=False) as live:
        while True:
            found = await status(group)
            table = rich_table(_COLUMNS, _rows(found, everything=everything))
            live.update(Lines(table, *_notes(found, everything=everything)), refresh=True)
            await asyncio.sleep(_EVERY_SECONDS)


# -- notes ---------------------------------------------------------------------------------------------------------


def _notes(found: GroupStatus, *, everything: bool) -> Iterator[str]:
    if found.daemon is None:
        yield "no daemon of this group answers on the admin port: positions and lag are those of the stored rows."
    else:
        yield from _words_of_daemons(found, found.daemon)
        for choice in found.daemon.get("choices", ()):
            for left in choice["left_out"]:
                yield f"rule {choice['rule']} leaves {left['table']} out: {left['reason']} {left['advice']}"
    if found.coordination_error:
        yield f"what is stored cannot be known, this is what workers say: {found.coordination_error}"
    yield from found.unreadable
    for name in found.unconfigured:
        yield f"there is progress of rule {name}, which is not configured: `replicator rules` says more."
    for rule in found.rules:
        if rule.paused:
            yield f"rule {rule.name} is paused: `replicator resume {rule.name}` lets it go on."
        for row in rule.held:
            yield f"{row['target'] or f'rule {rule.name}'} is held: {row['reason']} {row['advice']}"
    yield from map(_job, found.jobs)
    yield from (_away(region, answers=region.region not in found.unanswered) for region in found.regions)
    yield from _losses(found)
    yield from slow_words(found.pacing)
    over = Counter(shard.over for rule in found.rules for shard in rule.shards if shard.over)
    if over and not everything:
        hidden = " and ".join(f"{count} shards ({why})" for why, count in sorted(over.items()))
        yield f"{hidden} are hidden; --all shows them."


def _job(job: ListedJob) -> str:
    words = [f"{job.items} of about {job.items_expected} items"]
    words += [] if job.items_per_second is None else [f"{job.items_per_second:,.0f}/s"]
    words += [] if job.eta_seconds is None else [f"{shown_span(job.eta_seconds)} left"]
    words += [job.note] if job.note else []
    return f"job {job.job} on rule {job.rule} is {job.state}: {', '.join(words)}."


def _away(region: RegionStatus, *, answers: bool) -> str:
    """A region that misses changes, in a sentence: "ap: away 3 h, 1 204 keys owed"."""
    if region.paused:
        state = "paused"
    elif region.away_seconds is not None:
        state = f"away {_for(region.away_seconds)}"
    else:
        state = "catching up" if answers else "does not answer"
    count = f"{region.keys:,}".replace(",", " ")
    keys = f"{'at least ' if region.more else ''}{count} {'key' if region.keys == 1 else 'keys'} owed"
    oldest = "" if region.oldest_seconds is None else f", the oldest for {_for(region.oldest_seconds)}"
    then = f" `replicator resume {region.rule} --region {region.region}` lets it go on." if region.paused else ""
    why = f" {region.why}" if region.why else ""
    return f"rule {region.rule}, {region.region}: {state}, {keys}{oldest}.{why}{then}"


def _for(seconds: float) -> str:
    """A time that passed, as people say it."""
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _losses(found: GroupStatus) -> Iterator[str]:
    """What did not reach its target: lost before it was read, or refused and kept."""
    for gap in found.gaps:
        yield (
            f"records were lost: target {gap.target}, shard {gap.shard} after {gap.after.text}:"
            f" `replicator gaps acknowledge {gap.gap}` accepts it."
        )
    for rows in found.parked:
        yield f"{_parked(rows)} `replicator parked list` says why."


def slow_words(pacing: PacingStatus) -> Iterator[str]:
    """What is written more slowly than it could be, and why."""
    for table in pacing.throttled:
        yield (
            f"{table.table} in {table.region} throttles most requests of rule {table.rule}, so {table.allowed} at a"
            f" time are sent by worker {table.worker}: raise its capacity, or that of the region's side table."
        )
    for rule in pacing.slowed:
        yield (
            f"rule {rule.rule} takes {rule.taken_per_second:g} of {rule.write_units} write units a second in"
            f" {rule.region} and is slowed by write_units."
        )


def _parked(rows: ParkedStatus) -> str:
    """What a target refused, in a sentence."""
    kinds = ((rows.keys, "key", "keys"), (rows.records, "record", "records"))
    parts = [f"{count} {one if count == 1 else many}" for count, one, many in kinds if count]
    verb = "is" if rows.keys + rows.records == 1 else "are"
    age = "" if rows.oldest_seconds is None else f", the oldest for {rows.oldest_seconds:.0f} s"
    return f"target {rows.target} on {rows.table}: {' and '.join(parts)} {verb} parked{age}."


def _words_of_daemons(found: GroupStatus, first: Mapping[str, Any]) -> Iterator[str]:
    """What keeps workers from being ready, and which do not answer."""
    daemons = [worker.daemon for worker in found.workers if worker.daemon] or [first]
    reasons = [reason for daemon in daemons for reason in daemon.get("unready", ())]
    yield from (f"not ready: {reason}" for reason in dict.fromkeys(reasons))
    stock = {region: why for daemon in daemons for region, why in daemon.get("stock_clients", {}).items()}
    for region, why in sorted(stock.items()):
        yield f"the AWS client sends the calls of region {region}, at more CPU than the lean transport: {why}."
    for worker in found.workers:
        if worker.daemon is None:
            where = f"at {worker.admin}" if worker.admin else "and names no admin server that can be reached"
            yield f"worker {worker.worker} does not answer {where}: the lag of its shards is what is stored."


# -- rows ----------------------------------------------------------------------------------------------------------


def _rows(found: GroupStatus, *, everything: bool) -> Iterator[tuple[str, ...]]:
    for rule in found.rules:
        shards = [shard for shard in rule.shards if everything or not shard.over]
        if not shards:
            why = "no shard is read any more" if rule.shards else "no shard was read yet"
            whole = [row for row in rule.held if row["target"] is None]
            why = _held(whole[0]) if whole else why
            if found.coordination_error:
                why = "unknown: the coordination table does not answer"
            yield (rule.name, *[""] * (len(_COLUMNS) - 2), why)
        for shard in shards:
            yield from (_row(rule, shard, target) for target in shard.targets)


def _row(rule: RuleStatus, shard: ShardStatus, target: TargetStatus) -> tuple[str, ...]:
    return (
        rule.name,
        _whither(target),
        _which(rule, shard),
        shard.owner or "none",
        "" if shard.epoch is None else str(shard.epoch),
        _short(target.position or "none"),
        _seconds(target.lag_seconds),
        _seconds(target.seconds_since_progress),
        str(target.counts.get("records", "")),
        shard.over or _state(rule, shard, target),
    )


def _whither(target: TargetStatus) -> str:
    """Where records go: to a replica, or from one region of a mesh to all others."""
    if target.target.region is None:
        return f"all from {target.region}"
    name = target.target.name
    return f"caches in {name}" if target.target.kind is TargetKind.SOURCE_CACHES else name


def _which(rule: RuleStatus, shard: ShardStatus) -> str:
    """A shard, with its table when the rule has several."""
    several = len({source.table for source in rule.sources}) > 1
    return f"{shard.table} {_short(shard.shard)}" if several and shard.table else _short(shard.shard)


def _short(text: str) -> str:
    """The end of a long id, where ids differ."""
    return text if len(text) <= _LONGEST else f"…{text[1 - _LONGEST :]}"


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} s"


def _held(row: Mapping[str, Any]) -> str:
    return f"held: {row['reason']} {row['advice']}".strip()


def _state(rule: RuleStatus, shard: ShardStatus, target: TargetStatus) -> str:
    for row in rule.held:
        if (row["table"], row["target"]) == (shard.table, target.target.text):
            return _held(row)
    blocked = target.blocked
    if blocked is None and target.position == END.text:
        return FINISHED
    if blocked is None and shard.waits is not None:
        return f"waits: {shard.waits.reason} {shard.waits.remedy}".strip()
    if blocked is None and target.state is not None:
        return _LOST if target.state == LOST else f"waits: {target.state}"
    if blocked is None:
        return "unknown" if target.seconds_since_progress is None else "ok"
    key = f"key {blocked['key']}: " if blocked.get("key") else ""
    return f"blocked: {key}{blocked.get('reason', '')} {blocked.get('advice', '')}".strip()
