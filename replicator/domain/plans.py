"""What a changed configuration asks for before every target holds what it should: bootstraps, repairs and other steps.

Pure: two configurations as views of their targets, or one beside what the group has stored; and what a transform or a
filter makes of one item. Nothing is done here.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping, Sequence

from msgspec import Struct, field

from replicator.domain.copying.contents import is_same, wanted
from replicator.domain.errors import PoisonRecord
from replicator.domain.image import Image, unreserved
from replicator.domain.item_size import STAMP_BYTES, item_size
from replicator.domain.modes.ordered import InsertGuard
from replicator.domain.records import ItemKey
from replicator.domain.rules import Rule
from replicator.domain.targets import TargetKind
from replicator.domain.transforms import Transform, held_under
from replicator.domain.values import replace

_UNIT = 1024
_KEY = "key"
"""The aspect that says how keys at a target are made."""


class Needs(enum.StrEnum):
    """What is to be done."""

    BOOTSTRAP = "bootstrap"
    REPAIR = "repair"
    RENAME = "rename"
    REBUILD = "rebuild"
    FORGET = "forget"
    NOTHING = "nothing"  # it begins or ends by itself


WORK = frozenset({Needs.BOOTSTRAP, Needs.REPAIR, Needs.RENAME, Needs.REBUILD})
"""What is needed before targets hold what they should."""


class View(Struct, frozen=True):
    """A target as one configuration has it. `aspects`: by name, what decides which items it holds, and how."""

    rule: str
    target: str
    kind: TargetKind
    mode: str
    source: str
    epoch: int = 0
    aspects: Mapping[str, str] = field(default_factory=dict)


class Step(Struct, frozen=True):
    """One thing to do, why, and by which command; `target` is empty where it is about the whole rule or group."""

    rule: str
    target: str
    needs: Needs
    why: str
    command: str = ""


def changes(old: Sequence[View], new: Sequence[View]) -> list[Step]:
    """What it takes to go from one configuration to another."""
    before, after = _by_rule(old), _by_rule(new)
    renamed = dict(_renamed(before, after))
    steps = []
    for rule, views in after.items():
        if rule in renamed:
            earlier = renamed[rule]
            steps.append(
                Step(
                    rule,
                    "",
                    Needs.RENAME,
                    f"Its name was {earlier}, and a name is the identity of progress: it would be refused.",
                    f"replicator rules rename {earlier} {rule}",
                )
            )
        steps += _of_rule(before.get(renamed.get(rule, rule), []), views)
    for rule in before.keys() - after.keys() - set(renamed.values()):
        why = "It is no longer configured: its items and its progress stay."
        steps.append(Step(rule, "", Needs.FORGET, why, f"replicator rules forget {rule}"))
    return steps


def _by_rule(views: Sequence[View]) -> dict[str, list[View]]:
    found: dict[str, list[View]] = {}
    for view in views:
        found.setdefault(view.rule, []).append(view)
    return found


def _renamed(before: Mapping[str, Sequence[View]], after: Mapping[str, Sequence[View]]) -> Iterator[tuple[str, str]]:
    """Rules that read and write what one did that is gone: (name now, name then)."""
    gone = {name: {(view.kind, view.source, _place(view)) for view in before[name]} for name in before.keys() - after}
    for name in after.keys() - before.keys():
        places = {(view.kind, view.source, _place(view)) for view in after[name]}
        earlier = next((other for other, had in gone.items() if had & places), None)
        if earlier is not None:
            del gone[earlier]
            yield name, earlier


def _place(view: View) -> str:
    """A target's identity without its rule's name."""
    return view.target.partition("/")[2]


def _of_rule(before: Sequence[View], after: Sequence[View]) -> Iterator[Step]:
    known = {_place(view): view for view in before}
    for view in after:
        earlier = known.pop(_place(view), None)
        mode = next((each.mode for each in before if each.mode != view.mode), None)
        if mode is not None:
            why = f"Its mode was {mode}, whose versions do not compare; see 'Change the mode of a rule'."
            yield Step(view.rule, view.target, Needs.REBUILD, why)
        elif earlier is None:
            yield begun(view)
        elif earlier.source != view.source:
            yield _moved(earlier, view)
        else:
            yield from _reshaped(earlier, view)
    for view in known.values():
        why = "It is configured no more: it stays as it is, and follows nothing."
        yield Step(view.rule, view.target, Needs.NOTHING, why)


def begun(view: View) -> Step:
    """A target without progress."""
    if view.kind in {TargetKind.REPLICA, TargetKind.MESH}:
        why = "It has no progress: items older than the stream are not copied automatically."
        return Step(view.rule, view.target, Needs.BOOTSTRAP, why, f"replicator bootstrap {view.rule}")
    return Step(view.rule, view.target, Needs.NOTHING, "It has no progress, and begins where `start` says.")


def _moved(earlier: View, view: View) -> Step:
    why = f"It reads {view.source} instead of {earlier.source}."
    if view.epoch <= earlier.epoch:
        why += " Raise `epoch`, or what it brings may lose against what the former source brought."
    return Step(view.rule, view.target, Needs.REPAIR, why, f"replicator repair {view.rule}")


def _reshaped(earlier: View, view: View) -> Iterator[Step]:
    names = {**earlier.aspects, **view.aspects}
    changed = [name for name in names if earlier.aspects.get(name) != view.aspects.get(name)]
    if _KEY in changed:
        why = "Its keys are mapped in another way, and items under the former keys stay: use another table."
        yield rekeyed(view, why)
    elif changed:
        yield reshaped(view, ", ".join(changed))


def rekeyed(view: View, why: str) -> Step:
    """A replica whose keys are made in another way than those that are there."""
    return Step(view.rule, view.target, Needs.REBUILD, why)


def reshaped(view: View, what: str) -> Step:
    """A target whose filter, transform or key templates are other ones than before."""
    why = f"Changed: {what}. Items that do not change keep their former content."
    return Step(view.rule, view.target, Needs.REPAIR, why, f"replicator repair {view.rule}")


# -- one item ------------------------------------------------------------------------------------------------------


class Fate(enum.StrEnum):
    """What becomes of a target's item."""

    SAME = "same"
    ADDED = "added"
    CHANGED = "changed"
    REMOVED = "removed"
    LEFT_OUT = "left out"
    PARKED = "parked"  # the filter or the transform cannot be applied to it


class Effect(Struct, frozen=True):
    """What a configuration makes of one item of the source, beside what the target holds.

    `attributes`: `+name` comes, `-name` goes, `~name` gets another value. `units`: write units that this takes.
    `there`: its key at the target, where that is another one.
    """

    key: ItemKey
    fate: Fate
    attributes: tuple[str, ...] = ()
    units: int = 0
    wanted: Image | None = None
    why: str = ""
    there: ItemKey | None = None


def effect(rule: Rule, transform: Transform | None, key: ItemKey, source: Image, held: Image | None) -> Effect:
    """What becomes of one item of a target of mode `ordered`."""
    found = _effect(rule, transform, key, source, held)
    there = held_under(transform, key)
    return found if there == key else replace(found, there=there)


def _effect(rule: Rule, transform: Transform | None, key: ItemKey, source: Image, held: Image | None) -> Effect:
    try:
        image = wanted(rule, source, key, transform)
    except PoisonRecord as error:
        return Effect(key, Fate.PARKED, why=error.message)
    if image is None:
        fate = Fate.LEFT_OUT if held is None else Fate.REMOVED
        return Effect(key, fate, units=0 if held is None else 1 + _units(held))
    if held is None:
        units = _units(image)
        transact = rule.policy.insert_guard is InsertGuard.TRANSACT
        return Effect(key, Fate.ADDED, _attributes({}, image.attributes), 2 * (units + 1) if transact else units, image)
    if is_same(image, held):
        return Effect(key, Fate.SAME, wanted=image)
    attributes = _attributes(unreserved(held).attributes, image.attributes)
    return Effect(key, Fate.CHANGED, attributes, max(_units(image), _units(held)), image)


def _attributes(before: Mapping[str, object], after: Mapping[str, object]) -> tuple[str, ...]:
    marks = (
        (name, "+" if name not in before else "-" if name not in after else "~")
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    )
    return tuple(f"{mark}{name}" for name, mark in marks)


def _units(image: Image) -> int:
    return max(1, -(-(item_size(image) + STAMP_BYTES) // _UNIT))


class Estimate(Struct, frozen=True):
    """What a step takes, as far as counts of items that are hours old say; `sampled`: items that it goes by."""

    items: int
    read_units: int
    write_units: int
    sampled: int = 0


_DAY_SECONDS = 86_400


class Running(Struct, frozen=True):
    """What a target takes from then on, as its source is written now; of changes that are no inserts."""

    changes_per_second: float
    write_units_a_day: int


def running(changes_per_second: float, units: int) -> Running:
    """By the rate of a source, and the units of a mean item."""
    return Running(round(changes_per_second, 3), round(changes_per_second * units * _DAY_SECONDS))


def estimated(items: int, read_units: int, effects: Iterable[Effect], at_most: int) -> Estimate:
    """Write units by a sample of effects; without one what every item would take."""
    units = [each.units for each in effects]
    written = round(items * sum(units) / len(units)) if units else at_most
    return Estimate(items, read_units, written, len(units))
