"""What a verify, a repair or a sweep found, as it is shown: counts, differences by key, and how sure one may be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from replicator.domain.copying.contents import Kind
from replicator.domain.copying.sureness import nines
from replicator.domain.jobs import Counts, Job, JobState
from replicator.domain.records import item_key
from replicator.operations.item_region import item_in, region_of
from replicator.settings.compiled_rules import rule_per_source

if TYPE_CHECKING:
    from replicator.operations.group import Group
    from replicator.ports.jobs import Jobs
    from replicator.settings import RuleSettings

MOST_SHOWN = 100_000
"""Differences that a report lists at most."""

MOST_VALUES = 1000
"""Differences that are shown with values at most."""


@dataclass(frozen=True, slots=True)
class Units:
    """Read and write units that a job took."""

    read: float
    write: float


@dataclass(frozen=True, slots=True)
class CacheReport:
    """Entries beside compared items: how many there were, of another format, and older than their item."""

    checked: int
    opaque: int
    stale: int
    invalidated: int


@dataclass(frozen=True, slots=True)
class Report:
    """What a job found.

    `differences`: key as DynamoDB JSON, kind and target of each; `difference_count` may be more than are listed.
    `moving`: keys whose source changed at every look; `parked`: keys that a target is owed.
    `waited`: whether every later look came behind the stream; a job without a worker beside it cannot know. `gaps`: ids
    of losses that are open.
    """

    job: str
    rule: str
    kind: str
    state: str
    compared: int
    differences: Sequence[Mapping[str, Any]]
    difference_count: int
    kinds: Mapping[str, int]
    moving: int
    parked: int
    unjudged: int
    mended: int
    left: int
    refused: int
    caches: CacheReport
    units: Units
    nines: float | None
    waited: bool
    gaps: Sequence[str] = field(default=())
    nowhere: int = 0
    """Keys that were asked for and that no table holds."""

    @property
    def is_identical(self) -> bool:
        """Whether the job came to its end and nothing differs."""
        over = self.state == JobState.DONE
        return over and not self.difference_count and not self.caches.stale - self.caches.invalidated


async def with_values(
    group: Group, rule: RuleSettings, differences: Sequence[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """Differences with what the first source and their own table hold now; of as many as are worth reading."""
    shown = []
    mappings = {
        (target.region, target.table): target.keys
        for made in rule_per_source(group.settings, rule)
        for target in made.targets
    }
    for each in differences[:MOST_VALUES]:
        key = item_key(msgspec.json.encode(each["key"]))
        region, _, table = each["target"].partition(":")
        places = {"source": (*rule.sources[0], None), "found": (region, table, mappings.get((region, table)))}
        items = {
            name: await item_in(region_of(group.settings, group.places[where], table, keys=keys), key)
            for name, (where, table, keys) in places.items()
        }
        shown.append({**each, **{name: None if item is None else item.attributes for name, item in items.items()}})
    return [*shown, *differences[MOST_VALUES:]]


async def nowhere(group: Group, rule: RuleSettings, job: Job) -> int:
    """How many of the keys that a job was given no table holds, where it found no difference."""
    (region, table), keys = rule.sources[0], job.options.get("keys", ())
    source = region_of(group.settings, group.places[region], table)
    return [await item_in(source, item_key(msgspec.json.encode(key))) for key in keys].count(None)


async def report_of(
    jobs: Jobs, job: Job, counts: Counts, gaps: Sequence[str] = (), *, limit: int = MOST_SHOWN
) -> Report:
    """The report of a job as it stands; `counts`: all of its segments together."""
    notes = await jobs.notes(job.job_id, limit)

    def count(name: str) -> int:
        return int(counts.get(name, 0))

    return Report(
        job=job.job_id,
        rule=job.rule,
        kind=job.kind,
        state=job.state,
        compared=count("compared"),
        differences=[each for _, each in notes],
        difference_count=count("differences"),
        kinds={kind: count(kind) for kind in Kind if count(kind)},
        moving=count("moving"),
        parked=count("parked"),
        unjudged=count("unjudged"),
        mended=count("mended"),
        left=count("left"),
        refused=count("refused"),
        caches=CacheReport(count("entries"), count("opaque"), count("stale"), count("invalidated")),
        units=Units(counts.get("read_units", 0.0), counts.get("write_units", 0.0)),
        nines=nines(counts.get("compared", 0), counts.get("differences", 0)),
        waited=not count("alone"),
        gaps=gaps,
    )
