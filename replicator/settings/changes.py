"""What differs between two configurations: which rules came, went or changed in which fields, and what else did.

Invariant: values are compared and never shown, because any of them may be a secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import BaseModel

    from replicator.settings import Settings


@dataclass(frozen=True, slots=True)
class Changes:
    """From one configuration to another. `sections`: what changed outside of the rules."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: Mapping[str, tuple[str, ...]]
    """Rules that are in both, with the fields that differ."""
    sections: tuple[str, ...]

    @property
    def are_none(self) -> bool:
        """Whether nothing differs."""
        return not (self.added or self.removed or self.changed or self.sections)

    @property
    def shown(self) -> str:
        """In a line: "adds orders; changes users (filter, cache)"."""
        parts = [f"adds {', '.join(self.added)}"] if self.added else []
        parts += [f"removes {', '.join(self.removed)}"] if self.removed else []
        rules = ", ".join(f"{name} ({', '.join(fields)})" for name, fields in self.changed.items())
        parts += [f"changes {rules}"] if rules else []
        parts += [f"changes {', '.join(self.sections)}"] if self.sections else []
        return "; ".join(parts) or "changes nothing"


def changes(before: Settings, after: Settings) -> Changes:
    """What differs; rules are the same by their names, in whatever order they are written."""
    old, new = ({rule.name: rule for rule in each.rules} for each in (before, after))
    differing = {name: _fields(old[name], new[name]) for name in old if name in new}
    return Changes(
        added=tuple(name for name in new if name not in old),
        removed=tuple(name for name in old if name not in new),
        changed={name: fields for name, fields in differing.items() if fields},
        sections=tuple(name for name in _fields(before, after) if name != "rules"),
    )


def _fields(before: BaseModel, after: BaseModel) -> tuple[str, ...]:
    """The fields in which two values differ; of two kinds of rules, those that either has."""
    missing: Any = object()
    names = dict.fromkeys([*type(before).model_fields, *type(after).model_fields])
    return tuple(name for name in names if getattr(before, name, missing) != getattr(after, name, missing))
