"""What an operator asks to be verified or repaired, as a job: which tables, which part of them, with which units."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from replicator.checks.described_tables import Table, describe
from replicator.domain.copying.meshes import Missing
from replicator.domain.copying.ordered import Extra
from replicator.domain.errors import EXIT_USAGE, ReplicatorError
from replicator.domain.identifiers import RegionId, TableName
from replicator.domain.image import Image
from replicator.domain.jobs import MOST_SEGMENTS, Job, JobKind, Part, parts_of, place_name, segments_for
from replicator.operations.item_key import parse_key
from replicator.operations.jobs import new_job_id
from replicator.settings.compiled_rules import rule_per_source

if TYPE_CHECKING:
    from replicator.operations.group import Group
    from replicator.settings import RuleSettings

SAMPLE_ITEMS = 10_000
"""A sample takes whole segments of about so many items."""

MOST_KEYS = 1000
"""Keys that one job may name: they stand in its row."""

_MOST_OF = 1_000_000
"""Segments that DynamoDB cuts a table into, at most."""

_DICE = random.SystemRandom()


class ComparisonRefused(ReplicatorError):
    """The tables cannot be compared as it was asked for."""

    exit_code = EXIT_USAGE


@dataclass(frozen=True, slots=True)
class ComparisonRequest:
    """What is asked for. `keys` as an operator types them; `listed`: keys as DynamoDB JSON; `sample`: a share, to 1."""

    keys: tuple[str, ...] = ()
    listed: tuple[Any, ...] = ()
    prefix: str | None = None
    sample: float | None = None
    read_units: int | None = None
    write_units: int | None = None
    extra: str | None = None
    missing: str | None = None
    dry_run: bool = False


def parse_sample(text: str) -> float:
    """A share of the table: `1%`, or 0.01."""
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise ComparisonRefused(f"--sample {text} is no share of a table.", advice="Write for example 1%.")
    return share


def check_policies(extra: str, missing: str) -> None:
    """Refuse what is no way to decide what cannot be decided."""
    for name, value, choices in (("--extra", extra, list(Extra)), ("--missing", missing, list(Missing))):
        if value not in choices:
            raise ComparisonRefused(f"{name} {value} is no choice.", advice=f"Choices are: {', '.join(choices)}.")


def keys_in(path: Path) -> tuple[Any, ...]:
    """The keys of the differences that a `verify --json` or a `repair --json` wrote to a file, each once."""
    try:
        document = json.loads(path.read_text())
        keys = [each["key"] for each in document["differences"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ComparisonRefused(
            f"{path} is no report of a verify ({type(error).__name__}).",
            advice="Write one with `replicator verify RULE --json > FILE`.",
        ) from error
    return tuple({json.dumps(key, sort_keys=True): key for key in keys}.values())


async def comparison(  # noqa: PLR0913 - what is asked for, and by whom
    group: Group, rule: RuleSettings, kind: JobKind, request: ComparisonRequest, *, workers: int, by: str
) -> Job:
    """The job that does what is asked for; nothing is stored. The group has clients of the rule's regions."""
    rules = rule_per_source(group.settings, rule)
    if not rule.replica_tables:
        raise ComparisonRefused(f"Rule {rule.name} has no replica to compare.")
    places = [*rule.sources, *(place for place in rule.replica_tables if place not in rule.sources)]
    described = [await describe(group.places[region], table) for region, table in places]
    keys = [_typed(text, described[0]) for text in request.keys] + list(request.listed)
    if len(keys) > MOST_KEYS:
        raise ComparisonRefused(
            f"{len(keys)} keys are more than the {MOST_KEYS} that one job may name.",
            advice="Name fewer keys, or none, to compare the whole table.",
        )
    options = {
        "keys": keys,
        "prefix": request.prefix,
        "prefix_of": described[0].keys[0][0] if request.prefix else None,
        "sample": request.sample,
        "extra": request.extra,
        "missing": request.missing,
        "dry_run": request.dry_run,
        "read_units": _per_region(places, request.read_units),
        "write_units": _per_region(places, request.write_units),
    }
    return Job(
        new_job_id(kind),
        kind,
        rules[0].name,
        TableName(rule.table_name),
        tuple(sorted({each.target_id for one in rules for each in one.targets if each.table is not None})),
        (Part("keys", 1),) if keys else _parts(places, described, request.sample, workers),
        options={name: value for name, value in options.items() if value},
        by=by,
        items=len(keys) or round(sum(table.items for table in described) * (request.sample or 1)),
    )


def _typed(text: str, table: Table) -> Any:
    return Image(parse_key(text, table.keys).wire).attributes


def _per_region(places: Sequence[tuple[str, str]], units: int | None) -> dict[str, int]:
    return {} if units is None else {region: units for region, _ in places}


def _parts(
    places: Sequence[tuple[str, str]], described: Sequence[Table], sample: float | None, workers: int
) -> tuple[Part, ...]:
    """Every table in segments; of a sample, some of many small ones."""
    tables = [(RegionId(region), TableName(table)) for region, table in places]
    if sample is None:
        return parts_of(tables, segments_for(max(table.size for table in described), workers))
    parts = []
    for (region, table), found in zip(tables, described, strict=True):
        of = max(1, min(_MOST_OF, math.ceil(found.items / SAMPLE_ITEMS)))
        most = min(MOST_SEGMENTS, math.ceil(of * sample))
        parts.append(Part(place_name(region, table), of, tuple(sorted(_DICE.sample(range(of), most)))))
    return tuple(parts)
