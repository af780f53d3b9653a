"""What a configuration needs that differs from another one, or from what the group has stored; nothing is changed.

A sample reads items of the sources and what replicas hold under their keys, and says what would become of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from replicator.adapters.aws import wire
from replicator.adapters.dynamodb.scans import DynamoScan
from replicator.adapters.dynamodb.table_claims import ModeClaim, SideTableClaims, standing_mode
from replicator.checks.table_choices import TableFinder
from replicator.domain.image import Image
from replicator.domain.jobs import JobKind, JobState
from replicator.domain.plans import (
    Effect,
    Estimate,
    Needs,
    Running,
    Step,
    View,
    begun,
    changes,
    effect,
    estimated,
    rekeyed,
    reshaped,
    running,
)
from replicator.domain.targets import TargetKind
from replicator.operations.bootstrap import READ_BYTES, described, units_of
from replicator.operations.item_region import item_in, region_of
from replicator.operations.lag_history import changes_per_second
from replicator.settings import expanded
from replicator.settings.compiled_rules import rule_per_source, shape_of, transform_text

if TYPE_CHECKING:
    from replicator.domain.rules import Rule, Target
    from replicator.operations.group import Group
    from replicator.settings import RuleSettings, Settings

MOST_SAMPLED = 1000


class _Page(msgspec.Struct):
    Items: list[msgspec.Raw]


_PAGE = msgspec.json.Decoder(_Page)
_SHAPE = "filter, a transform or a key template"


@dataclass(frozen=True, slots=True)
class Planned:
    """A step, and what it takes; None where it was not looked for."""

    step: Step
    estimate: Estimate | None = None
    running: Running | None = None
    """What a new replica takes a day, where workers measure how its source is written."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What would become of items of one replica."""

    rule: str
    target: str
    effects: Sequence[Effect]


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that is needed, and samples where they were asked for."""

    steps: Sequence[Planned]
    samples: Sequence[Sample] = field(default=())


# -- two files -----------------------------------------------------------------------------------------------------


def compare(old: Settings, new: Settings) -> Plan:
    """What it takes to go from one file to another, as far as files show."""
    steps = [*_of_group(old, new), *changes(list(views(old)), list(views(new)))]
    return Plan([Planned(step) for step in steps])


def _of_group(old: Settings, new: Settings) -> Iterator[Step]:
    """What holds all progress, or all versions: elsewhere everything begins anew."""
    places = (
        ("group", old.group, new.group),
        ("coordination", _coordination(old), _coordination(new)),
        ("side_table", old.side_table_name, new.side_table_name),
        ("owed_table", old.owed_table_name, new.owed_table_name),
    )
    for name, before, after in places:
        if before != after:
            why = f"{name} was {before} and is {after}: the data stored there is not found any more."
            yield Step("", "", Needs.REBUILD, why)


def _coordination(settings: Settings) -> str:
    return f"{settings.coordination.region}:{settings.coordination.table}"


def views(settings: Settings) -> Iterator[View]:
    """Every target as a configuration has it; of a rule that chooses, one for all of its tables."""
    seen: set[tuple[str, str]] = set()
    for written in settings.rules:
        named = written if written.choice is None else written.on(str(written.choice))
        for rule in rule_per_source(settings, named):
            for target in rule.targets:
                view = _view(settings, written, rule, target)
                if (view.rule, view.target) not in seen:
                    seen.add((view.rule, view.target))
                    yield view


def _view(settings: Settings, written: RuleSettings, rule: Rule, target: Target) -> View:
    aspects = {
        "filter": written.filter.model_dump_json(),
        "key templates": "|".join(
            f"{action.cache}:{action.key}"
            for action in written.cache
            if settings.caches[action.cache].region == target.region
        ),
    }
    if transform := transform_text(settings, written, target):
        aspects["transform"] = transform
    if target.table is not None:
        aspects["key"] = "" if target.keys is None else target.keys.text
    members = "+".join(f"{region}:{table}" for region, table in rule.members)
    return View(rule.name, target.target_id.text, target.kind, rule.mode, members, rule.epoch, aspects)


# -- what is stored ------------------------------------------------------------------------------------------------


async def plan(group: Group, *, sample: int = 0) -> Plan:
    """What the configuration needs beside what the group has stored; the group has clients of every region."""
    chosen = await TableFinder(group.settings, group.places).look()
    settings = expanded(group.settings, chosen.tables)
    stored = await group.streams()
    rates = await changes_per_second(group)
    steps: list[Planned] = []
    samples: list[Sample] = []
    configured = {rule.name for rule in settings.rules}
    for orphan in sorted({rule for each in stored for rule in each.rules} - configured):
        why = "It has progress and is not configured; a rule of another name on its tables is refused."
        steps.append(Planned(Step(orphan, "", Needs.FORGET, why, f"replicator rules rename {orphan} NEW, or forget")))
    seen: set[tuple[str, str]] = set()
    for written in settings.rules:
        for rule in rule_per_source(settings, written):
            for target in rule.targets:
                view = _view(settings, written, rule, target)
                if (view.rule, view.target) in seen:
                    continue
                seen.add((view.rule, view.target))
                step = await _needed(group, settings, written, rule, target)
                effects = await _sampled(group, rule, target, sample) if sample else []
                if effects:
                    samples.append(Sample(view.rule, view.target, effects))
                if step is not None:
                    estimate = await _estimate(group, rule, target, step, effects)
                    steps.append(Planned(step, estimate, await _running(group, rule, target, step, rates)))
    return Plan(steps, samples)


async def _needed(group: Group, settings: Settings, written: RuleSettings, rule: Rule, target: Target) -> Step | None:
    view = _view(settings, written, rule, target)
    streams = [
        each for each in await group.streams() if (each.stream.region, each.stream.table) == (rule.source, rule.table)
    ]
    latest = max(streams, key=lambda each: each.stream.generation, default=None)
    if latest is None or target.target_id not in latest.targets:
        step = begun(view)
        filled = target.target_id in await group.jobs.filled()
        return None if filled or (latest is not None and step.needs is Needs.NOTHING) else step
    noted = await group.registry.shape(latest.stream, target)
    if noted is None:
        return None
    shape, changed_at = noted
    if shape != shape_of(settings, written, target):
        return await _rekeyed(group, rule, target, view) or reshaped(view, f"the {_SHAPE}")
    if changed_at is not None and not await _repaired(group, rule.name, changed_at):
        return reshaped(view, f"the {_SHAPE}, and no repair of all its items came after")
    return None


async def _rekeyed(group: Group, rule: Rule, target: Target, view: View) -> Step | None:
    """What a replica needs that was written under other keys; None when it was not."""
    if target.kind is not TargetKind.REPLICA or target.table is None:
        return None
    client, side_table = group.places[target.region].dynamodb, group.settings.side_table_name
    claim = ModeClaim(rule.name, target.region, target.table, rule.mode, target.keys)
    problem = await standing_mode(client, side_table=side_table, claim=claim)
    if problem is not None:
        return rekeyed(view, problem.sentence)
    claims = SideTableClaims(lambda _: client, side_table)
    if target.keys is not None and await claims.writer(target.region, target.table, target.keys) is None:
        return reshaped(view, "its keys; items under the former ones stay")
    return None


async def _repaired(group: Group, rule: str, since: float) -> bool:
    """Whether a repair of the whole rule began after a time, and is done."""
    return any(
        job.rule == rule
        and job.kind in {JobKind.REPAIR, JobKind.RESYNC}
        and job.state is JobState.DONE
        and job.created_at >= since
        and not {"keys", "prefix", "dry_run"} & {name for name, value in job.options.items() if value}
        for job in await group.jobs.jobs()
    )


# -- what it takes -------------------------------------------------------------------------------------------------


async def _estimate(group: Group, rule: Rule, target: Target, step: Step, effects: Sequence[Effect]) -> Estimate | None:
    """Units of a bootstrap or a repair of a replica; a bootstrap of a mesh says its own before it begins."""
    if target.kind is not TargetKind.REPLICA or step.needs not in {Needs.BOOTSTRAP, Needs.REPAIR, Needs.REBUILD}:
        return None
    source, held = await described(group, rule.source, rule.table), await _held(group, target)
    items, of_source, of_target = int(source["ItemCount"]), _read(source), _read(held)
    if step.needs is not Needs.REPAIR:
        return estimated(items, of_source, effects, items * 2 * (units_of(source) + 1))
    looked_up = max(items, of_target) + max(int(held["ItemCount"]), of_source)
    return estimated(items, of_source + of_target + looked_up, effects, items * units_of(source))


async def _running(group: Group, rule: Rule, target: Target, step: Step, rates: Mapping[str, float]) -> Running | None:
    rate = rates.get(f"{rule.source}:{rule.table}")
    if rate is None or target.kind is not TargetKind.REPLICA or step.needs is not Needs.BOOTSTRAP:
        return None
    return running(rate, units_of(await described(group, rule.source, rule.table)))


async def _held(group: Group, target: Target) -> Mapping[str, Any]:
    assert target.table is not None, "a replica has a table"
    return await described(group, target.region, target.table)


def _read(found: Mapping[str, Any]) -> int:
    return -(-int(found["TableSizeBytes"]) // READ_BYTES)


async def _sampled(group: Group, rule: Rule, target: Target, sample: int) -> list[Effect]:
    """What would become of some items of a replica."""
    if target.kind is not TargetKind.REPLICA or target.table is None:
        return []
    place = group.places[rule.source]
    key_of = await DynamoScan(place.items, place.dynamodb, region_id=place.region_id, table=rule.table).key_reader()
    replica = region_of(group.settings, group.places[target.region], target.table, keys=target.keys)
    body = msgspec.json.encode({"TableName": rule.table, "Limit": sample})
    what = f"Scan on {rule.table} in {rule.source}"
    answer = await place.items.call("Scan", body, None, what, TableName=rule.table)
    items = [Image(bytes(raw)) for raw in wire.decoded(_PAGE, answer.body, what).Items]
    return [
        effect(rule, target.transform, key, image, await item_in(replica, key))
        for key, image in ((key_of(image.wire), image) for image in items)
    ]
