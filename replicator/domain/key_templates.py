"""Cache keys from templates: the one rule by which daemon and readers name an item's entry.

It needs the standard library only, because the reader library shares it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from string import Formatter
from typing import Any, Protocol
from urllib.parse import quote, unquote

_GLOB = "*?[]^\\"
_ALWAYS_ESCAPED = "%{}\x7f" + "".join(map(chr, range(0x20)))


class Imaged(Protocol):
    """An item by its typed attributes."""

    @property
    def attributes(self) -> Mapping[str, Mapping[str, Any]]:
        """DynamoDB JSON by attribute name."""


class Keyed(Protocol):
    """A primary key."""

    @property
    def parts(self) -> tuple[tuple[str, str, str], ...]:
        """Name, type and text of every key attribute."""


MOST_KEYS = 64
"""That one item has by a template with a list; of more elements the first ones in their order as text."""

_LIST = "[]"


class KeyTemplate:
    """A cache key with `{attribute}` placeholders; `{{` and `}}` are literal braces.

    `{attribute[]}`, once at most, stands for the elements of a list or a set: an item has a key for each of them.
    `prefix` is put in front of every key, as it is.

    Values are percent-escaped where that keeps keys of different items different: `%`, braces and control characters
    always, and every character of the literal text between two placeholders.
    """

    def __init__(self, template: str, prefix: str = "") -> None:
        self.template = template
        parts = list(Formatter().parse(template))
        listed = [name for _, name, _, _ in parts if name is not None and name.endswith(_LIST)]
        if len(listed) > 1:
            raise ValueError("has two lists, so that an item could have very many keys")
        self.listed = listed[0].removesuffix(_LIST) if listed else None
        """The attribute whose elements have a key each."""
        parts = [
            (literal, None if name is None else name.removesuffix(_LIST), spec, conversion)
            for literal, name, spec, conversion in parts
        ]
        self.attributes = tuple(name for _, name, _, _ in parts if name is not None)
        if not self.attributes:
            raise ValueError("has no {attribute} placeholder, so every item would share one key")
        if any(not name or spec or conversion for _, name, spec, conversion in parts if name is not None):
            raise ValueError("has a placeholder that is not a plain {attribute} name")
        if self.listed is not None and self.attributes.count(self.listed) > 1:
            raise ValueError("names an attribute as a list and as a value")
        between = _between(parts)
        if not all(between):
            raise ValueError("has two placeholders with nothing between them, so two items could share one key")
        if any("%" in literal for literal in between):
            raise ValueError("has a % between two placeholders, where it could be taken for an escaped character")
        parts[0] = (prefix + parts[0][0], *parts[0][1:])
        self._parts = [(literal, name) for literal, name, _, _ in parts]
        first = next(place for place, part in enumerate(parts) if part[1] is not None)
        self._before = "".join(literal for literal, _, _, _ in parts[: first + 1])
        self._behind = "".join(literal for literal, _, _, _ in parts[first + 1 :])
        escaped = _ALWAYS_ESCAPED + "".join(between)
        self._escapes = str.maketrans({char: _percent(char) for char in escaped})
        self._needs_escapes = re.compile(f"[{re.escape(escaped)}]").search

    def key(self, image: Imaged) -> str | None:
        """The cache key of this item, the first one if it has several; None when it has none."""
        return next(iter(self.keys(image)), None)

    def keys(self, image: Imaged) -> tuple[str, ...]:
        """The cache keys of this item; none when an attribute of the template is missing or not S, N or B.

        A list has a key for each element that is S, N or B; without any, the item has none.
        """
        values = {}
        for name in self.attributes:
            if name != self.listed:
                value = _text(image.attributes.get(name, {}))
                if value is None:
                    return ()
                values[name] = value
        if self.listed is None:
            key = self.filled(values)
            return () if key is None else (key,)
        elements = sorted(_elements(image.attributes.get(self.listed, {})))[:MOST_KEYS]
        keys = [self.filled({**values, self.listed: element}) for element in elements]
        return tuple(key for key in keys if key is not None)

    def overflows(self, image: Imaged) -> bool:
        """Whether the item has more elements than keys."""
        return self.listed is not None and len(_elements(image.attributes.get(self.listed, {}))) > MOST_KEYS

    def of_every(self, key: Keyed) -> str | None:
        """The cache key of every item with this primary key; None when the template names other attributes, too."""
        if self.listed is not None:
            return None
        if len(key.parts) == 1 == len(self.attributes):
            ((name, _, value),) = key.parts
            if name != self.attributes[0]:
                return None
            if self._needs_escapes(value):
                value = value.translate(self._escapes)
            return f"{self._before}{value}{self._behind}"
        return self.filled({name: value for name, _, value in key.parts})

    def filled(self, values: Mapping[str, str]) -> str | None:
        """The cache key of these values, in the text that DynamoDB JSON has for them; None when one is missing."""
        parts = []
        for literal, name in self._parts:
            parts.append(literal)
            if name is None:
                continue
            value = values.get(name)
            if value is None:
                return None
            parts.append(self._escaped(value))
        return "".join(parts)

    def _escaped(self, value: str) -> str:
        return value.translate(self._escapes) if self._needs_escapes(value) else value

    def values_in(self, key: str) -> dict[str, str] | None:
        """The values that one of this template's keys was made of, as text; None when it is none of them."""
        made = "".join(re.escape(literal) + ("" if name is None else "(.*?)") for literal, name in self._parts)
        found = re.fullmatch(made, key, re.DOTALL)
        values = {} if found is None else dict(zip(self.attributes, map(unquote, found.groups()), strict=True))
        return values if self.filled(values) == key else None

    def lacks(self, names: Iterable[str]) -> list[str]:
        """Which of these attributes the template leaves out; of a primary key, two items could share a cache key."""
        return [name for name in names if name not in self.attributes]

    @property
    def prefix(self) -> str:
        """What all its keys begin with."""
        return self._before

    @property
    def pattern(self) -> str:
        """A glob that all its keys match, as Redis writes key patterns."""
        parts = []
        for literal, name in self._parts:
            parts.append("".join(f"\\{char}" if char in _GLOB else char for char in literal))
            parts.append("" if name is None else "*")
        return "".join(parts)


def _text(typed: Mapping[str, Any]) -> str | None:
    """A value as DynamoDB JSON writes it; None when it is not S, N or B."""
    value = typed.get("S", typed.get("N", typed.get("B")))
    return value if isinstance(value, str) else None


def _elements(typed: Mapping[str, Any]) -> set[str]:
    """The elements of a list or a set that are S, N or B."""
    for kind in ("SS", "NS", "BS"):
        if kind in typed:
            return set(typed[kind])
    return {text for text in map(_text, typed.get("L", ())) if text is not None}


def _between(parts: list[tuple[str, str | None, str | None, str | None]]) -> list[str]:
    """The literal texts between placeholders; an escaped brace cuts one of them into several parts."""
    texts: list[str] = []
    text = ""
    for literal, name, _, _ in parts:
        text += literal
        if name is not None:
            texts.append(text)
            text = ""
    return texts[1:]


def _percent(char: str) -> str:
    quoted = quote(char, safe="")
    return quoted if quoted != char else f"%{ord(char):02X}"
