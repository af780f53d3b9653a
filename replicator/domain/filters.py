"""Predicates on one image: which items a rule lets pass."""

from __future__ import annotations

from typing import Any

import jmespath.exceptions
from msgspec import Struct

from replicator.domain.errors import PoisonRecord
from replicator.domain.image import Image, normal_number, plain
from replicator.domain.records import Event


class Equals(Struct, frozen=True):
    """The attribute is this string, number (as text), boolean or null."""

    attribute: str
    value: str | bool | None
    is_number: bool = False

    def matches(self, typed: dict[str, Any]) -> bool:
        """Whether a typed attribute value equals the wanted one; numbers compare by value."""
        ((kind, value),) = typed.items()
        if self.value is None:
            return kind == "NULL"
        if isinstance(self.value, bool):
            return kind == "BOOL" and value is self.value
        if self.is_number:
            return kind == "N" and normal_number(value) == normal_number(self.value)
        return kind == "S" and value == self.value


class Where:
    """A JMESPath predicate over the item as plain JSON; true as JMESPath understands it."""

    def __init__(self, expression: str) -> None:
        self.expression = expression
        self._compiled = jmespath.compile(expression)

    def matches(self, image: Image) -> bool:
        """Whether the item satisfies the expression; `PoisonRecord` when the expression cannot be evaluated on it."""
        item = {name: plain(typed) for name, typed in image.attributes.items()}
        try:
            found = self._compiled.search(item)
        except (jmespath.exceptions.JMESPathError, TypeError, ValueError, AttributeError) as error:
            raise PoisonRecord(
                f"The filter's `where` cannot be evaluated on this item ({type(error).__name__}).",
                advice="Correct the expression, or the item's attribute types.",
            ) from error
        return found is not None and found is not False and found not in ("", [], {})


class Filter(Struct, frozen=True):
    """A predicate on one image, and the events that may pass it."""

    events: frozenset[Event] = frozenset(Event)
    key_prefix: tuple[tuple[str, str], ...] = ()
    equals: tuple[Equals, ...] = ()
    exists: tuple[str, ...] = ()
    where: Where | None = None

    def matches(self, image: Image | None) -> bool:
        """Whether an image passes; an absent one never does."""
        if image is None:
            return False
        # A rule without a filter must not decode images.
        if not (self.key_prefix or self.equals or self.exists or self.where):
            return True
        attributes = image.attributes
        return (
            all(attributes.get(name, {}).get("S", "").startswith(prefix) for name, prefix in self.key_prefix)
            and all(test.attribute in attributes and test.matches(attributes[test.attribute]) for test in self.equals)
            and all(name in attributes for name in self.exists)
            and (self.where is None or self.where.matches(image))
        )
