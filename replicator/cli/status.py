"""`replicator status`: where every shard and target stands, from the coordination table and the living daemons.

The table tells owners and positions even when every daemon is dead; lag and counts come from the admin servers that
heartbeats name, as far as they answer and speak of the same group.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from replicator.adapters.clients import open_places
from replicator.cli.gaps import document as gap_document
from replicator.cli.output import print_json, print_rows, rich_table
from replicator.cli.progress import Ledger, StreamProgress, checkpoints_of
from replicator.domain.errors import EXIT_STOPPED, EXIT_USAGE, ReplicatorError
from replicator.domain.identifiers import RuleName
from replicator.domain.progress import END
from replicator.domain.targets import TargetId, TargetKind, parse_target
from replicator.operations.worker_status import ask_all, by_worker
from replicator.settings.compiled_rules import sights_of
from replicator.settings.loading import configuration_path, load

if TYPE_CHECKING:
    from replicator.adapters.dynamodb.coordination import Pause, StoredGap
    from replicator.domain.shards.leases import Pulse, StreamRef
    from replicator.settings import RuleSettings, Settings

_EVERY_SECONDS = 1.0
_Seat = tuple[str | None, str, str, str | None]
"""What one position belongs to: stream ARN, shard, target, and the target's region."""

_FINISHED = "finished"
_TABLE_LEFT = "table no longer read"

_COLUMNS = ("rule", "target", "shard", "owner", "epoch", "position", "lag", "progress", "records", "state")


def show_status(config: Path | None, *, watch: bool, everything: bool, as_json: bool) -> int:
    """Print the status once, or again and again until Ctrl-C. `everything`: what nobody reads any more, too.

    JSON always has everything.
    """
    if watch and as_json:
        sys.stderr.write("replicator: --watch and --json exclude each other: a script asks again by itself.\n")
        return EXIT_USAGE
    settings = load(configuration_path(config))
    if watch:
        with contextlib.suppress(KeyboardInterrupt):  # the way to end it
            asyncio.run(_watch(settings, everything=everything))
        return EXIT_STOPPED
    document = asyncio.run(_once(settings))
    if as_json:
        print_json(document)
    else:
        for line in _notes(document, everything=everything):
            sys.stderr.write(f"replicator: {line}\n")
        print_rows(_COLUMNS, list(_rows(document, everything=everything)))
    return EXIT_STOPPED


async def _once(settings: Settings) -> dict[str, Any]:
    home = settings.coordination.region
    async with open_places(settings, {home}) as places:
        return await _collect(settings, Ledger(settings, places[home]))


async def _watch(settings: Settings, *, everything: bool) -> None:
    home = settings.coordination.region
    async with open_places(settings, {home}) as places:
        ledger = Ledger(settings, places[home])
        if not sys.stdout.isatty():
            while True:
                print_rows(_COLUMNS, [*_rows(await _collect(settings, ledger), everything=everything), ()])
                sys.stdout.flush()
                await asyncio.sleep(_EVERY_SECONDS)
        from rich.console import Group
        from rich.live import Live

        with Live(screen=False, auto_refresh=False) as live:
            while True:
                document = await _collect(settings, ledger)
                table = rich_table(_COLUMNS, _rows(document, everything=everything))
                live.update(Group(table, *_notes(document, everything=everything)), refresh=True)
                await asyncio.sleep(_EVERY_SECONDS)


# -- collecting ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Stored:
    """What the coordination table tells."""

    streams: list[StreamProgress] = field(default_factory=list)
    pulses: Mapping[str, Pulse] = field(default_factory=dict)
    gaps: list[StoredGap] = field(default_factory=list)
    pauses: list[Pause] = field(default_factory=list)


async def _collect(settings: Settings, ledger: Ledger) -> dict[str, Any]:
    """One document of what both sources tell; an error only when neither tells anything."""
    stored = await _ask_table(ledger)
    told, trouble = (_Stored(), stored) if isinstance(stored, ReplicatorError) else (stored, None)
    daemons = by_worker(await ask_all(settings, (pulse.admin for pulse in told.pulses.values())))
    if trouble is not None and not daemons:
        raise trouble
    configured = {rule.name for rule in settings.rules}
    first = next(iter(daemons.values()), None)
    tables = _chosen(daemons)
    return {
        "group": settings.group,
        "daemon": None if first is None else _without_rules(first),
        "coordination_error": None if trouble is None else trouble.sentence,
        "workers": [
            {
                "worker": worker,
                "heartbeat": pulse.beat,
                "admin": pulse.admin,
                "daemon": _without_rules(daemons[worker]) if worker in daemons else None,
            }
            for worker, pulse in sorted(told.pulses.items())
        ],
        "rules": [
            {
                **_rule(settings, rule, told.streams, _live(daemons, told.streams, rule.name), tables.get(rule.name)),
                "paused": any(pause.rule == rule.name for pause in told.pauses),
            }
            for rule in settings.rules
        ],
        "gaps": [gap_document(gap) for gap in told.gaps if gap.acknowledged_at is None],
        "unconfigured": sorted({name for progress in told.streams for name in progress.rules} - configured),
    }


async def _ask_table(ledger: Ledger) -> _Stored | ReplicatorError:
    try:
        return _Stored(
            await ledger.streams(),
            await ledger.pulses(),
            await ledger.operations.gaps(),
            await ledger.operations.pauses(),
        )
    except ReplicatorError as error:
        return error


def _without_rules(daemon: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in daemon.items() if key != "rules"}


def _live(
    daemons: Mapping[str, Mapping[str, Any]], streams: list[StreamProgress], rule: str
) -> dict[_Seat, Mapping[str, Any]]:
    """What daemons say about a rule. Of a shard that two speak of, the owner's word counts."""
    owners: dict[tuple[str | None, str], str | None] = {
        (progress.stream.arn, shard_id): row.get("owner", {}).get("S")
        for progress in streams
        for shard_id, row in progress.shards.items()
    }
    found: dict[_Seat, Mapping[str, Any]] = {}
    for worker, daemon in daemons.items():
        for told in daemon.get("rules", ()):
            for shard in told.get("shards", ()) if told.get("name") == rule else ():
                for target in shard.get("targets", ()):
                    seat = (shard.get("stream"), shard["shard"], target["target"], target.get("region"))
                    if seat not in found or owners.get((seat[0], seat[1])) == worker:
                        found[seat] = target
    return found


def _chosen(daemons: Mapping[str, Mapping[str, Any]]) -> dict[str, set[str]]:
    """The tables of rules that choose them, as living daemons have chosen."""
    found: dict[str, set[str]] = {}
    for daemon in daemons.values():
        for choice in daemon.get("choices", ()):
            found.setdefault(choice["rule"], set()).update(choice["tables"])
    return found


def _rule(
    settings: Settings,
    rule: RuleSettings,
    streams: list[StreamProgress],
    live: Mapping[_Seat, Mapping[str, Any]],
    chosen: set[str] | None,
) -> dict[str, Any]:
    """A rule with its shards. `chosen`: the tables it chooses, when a daemon tells."""
    left = dict(live)
    shards = []
    for progress in streams:
        stream = progress.stream
        if not _reads(rule, progress):
            continue
        configured = _configured(settings, rule, stream)
        for shard_id, row in sorted(progress.shards.items()):
            saved = checkpoints_of(row)
            seen = (parse_target(seat[2]) for seat in live if seat[:2] == (stream.arn, shard_id))
            names = {target for target in {*saved, *seen} if target is not None and target.rule == rule.name}
            targets = [
                _target(seat, saved.get(target), left.pop(seat, {}))
                for target in sorted(names & configured or names)
                for seat in [(stream.arn, shard_id, target.text, target.region or stream.region)]
            ]
            shards.append(
                {
                    "shard": shard_id,
                    "region": stream.region,
                    "table": stream.table,
                    "stream": stream.arn,
                    "owner": row.get("owner", {}).get("S"),
                    "epoch": int(row.get("epoch", {}).get("N", 0)),
                    "over": _over(targets, is_chosen=chosen is None or stream.table in chosen),
                    "targets": targets,
                }
            )
    for (arn, shard_id, _, _), told in left.items():  # seen by the daemon only: the table does not answer
        unknown = {"region": None, "table": None, "owner": None, "epoch": None, "over": None}
        shards.append({"shard": shard_id, "stream": arn, **unknown, "targets": [dict(told)]})
    return {
        "name": rule.name,
        "mode": rule.mode,
        "sources": [{"region": region, "table": table} for region, table in _sources(rule, streams)],
        "shards": shards,
    }


def _over(targets: list[dict[str, Any]], *, is_chosen: bool) -> str | None:
    """Why nobody reads a shard any more: it is finished, or its table went; None when it is read, or to be read."""
    if any(target["blocked"] for target in targets):
        return None
    if targets and all(target["position"] == END.text for target in targets):
        return _FINISHED
    return None if is_chosen else _TABLE_LEFT


def _reads(rule: RuleSettings, progress: StreamProgress) -> bool:
    """Whether a rule reads a stream; of one that chooses its tables, whether it ever did."""
    stream = progress.stream
    known = rule.name in progress.rules if rule.choice else (stream.region, stream.table) in rule.sources
    return known and not progress.known.is_drained(RuleName(rule.name))


def _sources(rule: RuleSettings, streams: list[StreamProgress]) -> list[tuple[str, str]]:
    """The tables that a rule reads; of one that chooses them, those that it has progress on."""
    if rule.choice is None:
        return rule.sources
    read = [progress.stream for progress in streams if _reads(rule, progress)]
    return sorted({(str(stream.region), str(stream.table)) for stream in read})


def _configured(settings: Settings, rule: RuleSettings, stream: StreamRef) -> set[TargetId]:
    """The targets that a rule has on a stream now; what is stored of others is what the rule was before."""
    seen = sights_of(settings, rule if rule.choice is None else rule.on(stream.table))
    return {target.target_id for each in seen if each.source == stream.region for target in each.targets}


def _target(seat: _Seat, saved: str | None, live: Mapping[str, Any]) -> dict[str, Any]:
    _, _, target, region = seat
    return {
        "target": target,
        "region": region,
        "checkpoint": saved,
        "position": live.get("position", saved),
        "lag_seconds": live.get("lag_seconds"),
        "seconds_since_progress": live.get("seconds_since_progress"),
        "counts": live.get("counts", {}),
        "blocked": live.get("blocked"),
    }


# -- showing -------------------------------------------------------------------------------------------------------


def _notes(document: Mapping[str, Any], *, everything: bool) -> Iterator[str]:
    if document["daemon"] is None:
        yield "no daemon of this group answers on the admin port: positions are those saved last, lag is unknown."
    else:
        yield from _words_of_daemons(document)
        for choice in document["daemon"].get("choices", ()):
            for left in choice["left_out"]:
                yield f"rule {choice['rule']} leaves {left['table']} out: {left['reason']} {left['advice']}"
    if document["coordination_error"]:
        yield document["coordination_error"]
    for name in document["unconfigured"]:
        yield f"there is progress of rule {name}, which is not configured: `replicator rules` says more."
    for rule in document["rules"]:
        if rule["paused"]:
            yield f"rule {rule['name']} is paused: `replicator resume {rule['name']}` lets it go on."
    for gap in document["gaps"]:
        yield (
            f"records were lost: target {gap['target']}, shard {gap['shard']} after {gap['after']}:"
            f" `replicator gaps acknowledge {gap['gap']}` accepts it."
        )
    over = Counter(shard["over"] for rule in document["rules"] for shard in rule["shards"] if shard["over"])
    if over and not everything:
        hidden = " and ".join(f"{count} shards ({why})" for why, count in sorted(over.items()))
        yield f"{hidden} are hidden; --all shows them."


def _words_of_daemons(document: Mapping[str, Any]) -> Iterator[str]:
    """What keeps daemons from being ready, and who does not answer."""
    daemons = [worker["daemon"] for worker in document["workers"] if worker["daemon"]] or [document["daemon"]]
    reasons = [reason for daemon in daemons for reason in daemon.get("unready", ())]
    yield from (f"not ready: {reason}" for reason in dict.fromkeys(reasons))
    for worker in document["workers"]:
        if worker["daemon"] is None:
            where = f"at {worker['admin']}" if worker["admin"] else "and names no admin server that can be reached"
            yield f"worker {worker['worker']} does not answer {where}: the lag of its shards is unknown."


def _rows(document: Mapping[str, Any], *, everything: bool) -> Iterator[tuple[str, ...]]:
    for rule in document["rules"]:
        shards = [shard for shard in rule["shards"] if everything or not shard["over"]]
        if not shards:
            told = "no shard is read any more" if rule["shards"] else "no shard was read yet"
            yield (rule["name"], *[""] * (len(_COLUMNS) - 2), told)
        for shard in shards:
            for target in shard["targets"]:
                yield (
                    rule["name"],
                    _whither(target),
                    _which(rule, shard),
                    shard["owner"] or "nobody",
                    "" if shard["epoch"] is None else str(shard["epoch"]),
                    _short(target["position"] or "none"),
                    _seconds(target["lag_seconds"]),
                    _seconds(target["seconds_since_progress"]),
                    _count(target["counts"]),
                    shard["over"] or _state(target),
                )


def _whither(target: Mapping[str, Any]) -> str:
    """Where records go, for people: a replica, or from one region of a mesh to all others."""
    parsed = parse_target(target["target"])
    if parsed is None or parsed.region is None:
        return f"all from {target['region']}"
    return f"caches in {parsed.name}" if parsed.kind is TargetKind.SOURCE_CACHES else parsed.name


def _which(rule: Mapping[str, Any], shard: Mapping[str, Any]) -> str:
    """A shard for people, with its table when the rule has several."""
    tables = {source["table"] for source in rule["sources"]}
    shown = _short(str(shard["shard"]))
    return f"{shard['table']} {shown}" if len(tables) > 1 and shard["table"] else shown


_LONGEST = 18


def _short(text: str) -> str:
    """The end of a long id, where ids differ."""
    return text if len(text) <= _LONGEST else f"…{text[1 - _LONGEST :]}"


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} s"


def _count(counts: Mapping[str, int]) -> str:
    return str(counts.get("records", "")) if counts else ""


def _state(target: Mapping[str, Any]) -> str:
    blocked: Mapping[str, Any] | None = target["blocked"]
    if blocked is None and target["position"] == END.text:
        return _FINISHED
    if blocked is None:
        return "unknown" if target["seconds_since_progress"] is None else "ok"
    key = f"key {blocked['key']}: " if blocked.get("key") else ""
    return f"blocked: {key}{blocked.get('reason', '')} {blocked.get('advice', '')}".strip()
