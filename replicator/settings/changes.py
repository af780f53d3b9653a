"""What differs between two configurations: which rules came, went or changed in which fields, and which keys did.

Invariant: values are compared and never shown, because any of them may be a secret.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from pydantic import BaseModel

if TYPE_CHECKING:
    from replicator.settings import Settings

_NAMES_A_SECRET = frozenset({"hmac", "secret"})
"""Keys of rules under which the name of a secret stands."""


class Changes(Struct, frozen=True):
    """From one configuration to another. `keys`: what changed outside of the rules, as `log.level` or `regions.eu`."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: Mapping[str, tuple[str, ...]]
    """Rules that are in both, with the fields that differ."""
    keys: tuple[str, ...]

    @property
    def are_none(self) -> bool:
        """Whether nothing differs."""
        return not (self.added or self.removed or self.changed or self.keys)

    @property
    def shown(self) -> str:
        """In a line: "adds orders; changes users (filter, cache)"."""
        parts = [f"adds {', '.join(self.added)}"] if self.added else []
        parts += [f"removes {', '.join(self.removed)}"] if self.removed else []
        rules = ", ".join(f"{name} ({', '.join(fields)})" for name, fields in self.changed.items())
        parts += [f"changes {rules}"] if rules else []
        parts += [f"changes {', '.join(self.keys)}"] if self.keys else []
        return "; ".join(parts) or "changes nothing"


def changes(before: Settings, after: Settings) -> Changes:
    """What differs; rules are the same by their names, in whatever order they are written."""
    old, new = ({rule.name: rule for rule in each.rules} for each in (before, after))
    differing = {name: _fields(old[name], new[name]) for name in old if name in new}
    return Changes(
        added=tuple(name for name in new if name not in old),
        removed=tuple(name for name in old if name not in new),
        changed={name: fields for name, fields in differing.items() if fields},
        keys=tuple(
            key
            for name in _fields(before, after)
            if name != "rules"
            for key in _below(name, getattr(before, name), getattr(after, name))
        ),
    )


def _below(path: str, before: Any, after: Any) -> list[str]:
    """The keys that differ: of a section its own, of things with names those that came, went or changed."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
        return [f"{path}.{name}" for name in names]
    if not (isinstance(before, BaseModel) and isinstance(after, BaseModel)):
        return [path]
    return [
        key
        for name in _fields(before, after)
        for key in _below(f"{path}.{name}", getattr(before, name), getattr(after, name))
    ]


def _fields(before: BaseModel, after: BaseModel) -> tuple[str, ...]:
    """The fields in which two values differ; of two kinds of rules, those that either has."""
    missing: Any = object()
    names = dict.fromkeys([*type(before).model_fields, *type(after).model_fields])
    return tuple(name for name in names if getattr(before, name, missing) != getattr(after, name, missing))


def secrets_of_rules(settings: Settings) -> set[str]:
    """Names of the secrets that rules use: keys of masks and of signatures."""
    return {name for rule in settings.rules for name in _named(rule.model_dump())}


def _named(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, each in value.items():
            if key in _NAMES_A_SECRET and isinstance(each, str):
                yield each
            else:
                yield from _named(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _named(each)
