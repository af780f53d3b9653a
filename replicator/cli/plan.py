"""`replicator plan`: what a configuration needs that was changed, and what it makes of items that are there."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from replicator.cli.output import note, print_json, print_rows
from replicator.cli.running import loaded, on_group
from replicator.domain.errors import EXIT_FAULT, EXIT_STOPPED
from replicator.domain.plans import WORK
from replicator.domain.verdict.kinds import counted
from replicator.operations.bootstrap import READ_PRICE, WRITE_PRICE
from replicator.operations.errors import RequestRefused
from replicator.operations.plans import MOST_SAMPLED, Plan, compare, plan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replicator.domain.plans import Effect, Estimate, Running

_MILLION = 1_000_000
_COLUMNS = ("rule", "target", "needs", "read units", "write units", "a day", "why", "command")


def show_plan(config: Path | None, files: Sequence[Path], *, sample: int, values: bool, as_json: bool) -> int:
    """Exit code 0: nothing is needed; 1: something is, before every target holds what it should."""
    if len(files) > 2:  # noqa: PLR2004 - OLD and NEW
        raise RequestRefused("A plan compares two files at most.", advice="Name OLD and NEW.")
    if not 0 <= sample <= MOST_SAMPLED:
        raise RequestRefused(f"--sample takes 0 to {MOST_SAMPLED} items.")
    if len(files) == 2:  # noqa: PLR2004 - OLD and NEW
        if sample:
            raise RequestRefused(
                "Two files are compared without looking at items.", advice="Leave OLD or --sample out."
            )
        found = compare(loaded(files[0]), loaded(files[1]))
    else:
        settings = loaded(files[0] if files else config)
        regions = {region for rule in settings.rules for region in rule.regions_used}
        found = on_group(settings, lambda group: plan(group, sample=sample), regions)
    needed = any(planned.step.needs in WORK for planned in found.steps)
    if as_json:
        print_json(_document(found, values=values, needed=needed))
    else:
        _show(found, values=values, needed=needed)
    return EXIT_FAULT if needed else EXIT_STOPPED


def _show(found: Plan, *, values: bool, needed: bool) -> None:
    if found.steps:
        rows = [
            [
                planned.step.rule,
                planned.step.target,
                planned.step.needs,
                *_units(planned.estimate),
                _a_day(planned.running),
                planned.step.why,
                planned.step.command,
            ]
            for planned in found.steps
        ]
        print_rows(_COLUMNS, rows)
    for sample in found.samples:
        counts = Counter(each.fate for each in sample.effects)
        said = ", ".join(f"{count} {fate}" for fate, count in sorted(counts.items()))
        sys.stdout.write(f"\n{sample.target}: of {counted(len(sample.effects), 'item')} {said}.\n")
        rows = [[_key(each), each.fate, " ".join(each.attributes) or each.why] for each in sample.effects]
        if values:
            rows = [[*row, _value(each)] for row, each in zip(rows, sample.effects, strict=True)]
        print_rows(("key", "becomes", "attributes", *(["item"] if values else [])), rows)
    if not needed:
        note("nothing is needed: every target continues, or starts by itself.")


def _units(estimate: Estimate | None) -> tuple[str, str]:
    if estimate is None:
        return "", ""
    return f"{estimate.read_units}", f"{'about' if estimate.sampled else 'at most'} {estimate.write_units}"


def _a_day(found: Running | None) -> str:
    """What a target takes from then on."""
    return "" if found is None else f"about {found.write_units_a_day} write units, ${_price(found):.2f}"


def _price(found: Running) -> float:
    return found.write_units_a_day * WRITE_PRICE / _MILLION


def _key(effect: Effect) -> str:
    return effect.key.shown if effect.there is None else f"{effect.key.shown} -> {effect.there.shown}"


def _value(effect: Effect) -> str:
    return "" if effect.wanted is None else effect.wanted.wire.decode()


def _document(found: Plan, *, values: bool, needed: bool) -> dict[str, Any]:
    return {
        "needed": needed,
        "steps": [
            {**_step(planned.step), **_taken(planned.estimate), "a_day": _lasting(planned.running)}
            for planned in found.steps
        ],
        "samples": [
            {
                "rule": sample.rule,
                "target": sample.target,
                "items": [_shown(each, values=values) for each in sample.effects],
            }
            for sample in found.samples
        ],
    }


def _step(step: Any) -> dict[str, str]:
    return {
        "rule": step.rule,
        "target": step.target,
        "needs": step.needs.value,
        "why": step.why,
        "command": step.command,
    }


def _taken(estimate: Estimate | None) -> dict[str, Any]:
    if estimate is None:
        return {"items": None, "read_units": None, "write_units": None, "sampled": 0, "dollars": None}
    dollars = (estimate.read_units * READ_PRICE + estimate.write_units * WRITE_PRICE) / _MILLION
    return {
        "items": estimate.items,
        "read_units": estimate.read_units,
        "write_units": estimate.write_units,
        "sampled": estimate.sampled,
        "dollars": round(dollars, 2),
    }


def _lasting(found: Running | None) -> dict[str, Any] | None:
    if found is None:
        return None
    units, rate = found.write_units_a_day, found.changes_per_second
    return {"changes_per_second": rate, "write_units": units, "dollars": round(_price(found), 2)}


def _shown(effect: Effect, *, values: bool) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "key": msgspec.json.decode(effect.key.wire),
        "there": None if effect.there is None else msgspec.json.decode(effect.there.wire),
        "becomes": effect.fate.value,
        "attributes": list(effect.attributes),
        "units": effect.units,
        "why": effect.why,
    }
    if values:
        shown["item"] = None if effect.wanted is None else effect.wanted.attributes
    return shown
