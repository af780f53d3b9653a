"""The key of an item at a target that has other keys than its source: made from the source's, and read back.

Invariants: two keys of the source never have one key at the target, and what `source_of` reads back is what `mapped`
made it from. So versions, deletes and rows of what is owed stay those of the source's key.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping
from decimal import Context, Decimal, DecimalException
from functools import lru_cache
from string import Formatter
from urllib.parse import quote, unquote

import msgspec

from replicator.domain.errors import PoisonRecord
from replicator.domain.records import ItemKey

LONGEST_PARTITION_KEY = 2048
LONGEST_SORT_KEY = 1024
"""Bytes that DynamoDB takes."""

_KINDS = frozenset("SNB")
_ALWAYS_ESCAPED = "%{}\x7f" + "".join(map(chr, range(0x20)))
_KEYS_KEPT = 1024
"""Keys that were made last: one change asks for the same one up to four times."""

_EXACT = Context(prec=60, Emin=-400, Emax=400)


class KeyText:
    """What one key attribute holds: a constant, an attribute of the source's key as it is, or a text made of them.

    `{name}` stands for a string of the source's key, `{name:N}` for a number, `{name:B}` for binary; `{{` and `}}` are
    literal braces. Values are escaped as in cache keys: `%`, braces, control characters, and every character of the
    literal text between two placeholders; so a text is read back in one way only.
    """

    __slots__ = ("_escapes", "_literals", "_parts", "constant", "text")

    def __init__(self, text: str, *, constant: bool = False) -> None:
        self.text, self.constant = text, constant
        self._literals, self._parts = ([text], []) if constant else _parsed(text)
        between = "".join(self._literals[1:-1])
        self._escapes = str.maketrans({char: _percent(char) for char in _ALWAYS_ESCAPED + between})

    @property
    def names(self) -> tuple[str, ...]:
        """The attributes of the source's key that it holds."""
        return tuple(name for name, _ in self._parts)

    @property
    def copies(self) -> str | None:
        """The attribute that it holds as it is, with its type; None when it is a text of its own."""
        return self._parts[0][0] if len(self._parts) == 1 and not any(self._literals) else None

    def kinds(self) -> Iterable[tuple[str, str]]:
        """Attribute and type of every placeholder; of one that is copied only where the type is written."""
        return ((name, kind or "S") for name, kind in self._parts if kind or self.copies is None)

    def typed(self, values: Mapping[str, tuple[str, str]]) -> tuple[str, str]:
        """Type and text for these values (type and text by name); `PoisonRecord` where a type is another one."""
        for name, kind in self.kinds():
            found = values[name][0]
            if found != kind:
                raise PoisonRecord(
                    f"The key's attribute {name} has type {found}, and the key mapping takes it for {kind}.",
                    advice=f"Write {{{name}:{found}}} in transform.key.",
                )
        if self.copies is not None:
            return values[self.copies]
        made = [self._literals[0]]
        for (name, kind), literal in zip(self._parts, self._literals[1:], strict=True):
            made += [_text_of(kind or "S", values[name][1]).translate(self._escapes), literal]
        return "S", "".join(made)

    def values(self, kind: str, text: str) -> dict[str, tuple[str, str]] | None:
        """The values that it was made of; None when it cannot be one of its texts."""
        if self.copies is not None:
            return {self.copies: (kind, text)}
        if kind != "S" or not text.startswith(self._literals[0]):
            return None
        rest, found = text[len(self._literals[0]) :], dict[str, tuple[str, str]]()
        for place, ((name, declared), literal) in enumerate(zip(self._parts, self._literals[1:], strict=True), 1):
            last = place == len(self._parts)
            cut = (len(rest) - len(literal) if rest.endswith(literal) else -1) if last else _found(rest, literal)
            if cut < 0:
                return None
            value = (declared or "S", unquote(rest[:cut], errors="replace"))
            if not value[1] or found.setdefault(name, value) != value:
                return None
            rest = rest[cut + len(literal) :]
        return None if rest else found

    def is_apart_from(self, other: KeyText) -> bool:
        """Whether no text of the one can be a text of the other, by what is constant in them."""
        for one, two in ((self, other), (other, self)):
            if one.constant:
                return not two.may_make(one.text)
        mine, theirs = self._literals, other._literals
        begins = mine[0].startswith(theirs[0]) or theirs[0].startswith(mine[0])
        ends = mine[-1].endswith(theirs[-1]) or theirs[-1].endswith(mine[-1])
        return not (begins and ends)

    def may_make(self, text: str) -> bool:
        """Whether it may be one of its texts, by what is constant in them."""
        if self.constant:
            return self.text == text
        first, last = self._literals[0], self._literals[-1]
        return len(text) > len(first) + len(last) and text.startswith(first) and text.endswith(last)


class KeyMapping(msgspec.Struct, frozen=True):
    """Every key attribute of the target with what it holds: the partition key first, then the sort key."""

    attributes: tuple[tuple[str, KeyText], ...]
    text: str
    """What it is, as text: two mappings are one when these are equal."""

    def __eq__(self, other: object) -> bool:
        return self.text == other.text if isinstance(other, KeyMapping) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.text)

    @property
    def names(self) -> tuple[str, ...]:
        """The key attributes at the target."""
        return tuple(name for name, _ in self.attributes)

    @property
    def sources(self) -> frozenset[str]:
        """The attributes of the source's key that it holds."""
        return frozenset(name for _, text in self.attributes for name in text.names)

    def kinds(self, source: Mapping[str, str]) -> list[tuple[str, str]]:
        """Name and type of the target's key attributes, by the types of the source's."""
        return [(name, source.get(text.copies, "?") if text.copies else "S") for name, text in self.attributes]

    def mistyped(self, source: Mapping[str, str]) -> list[tuple[str, str]]:
        """Attributes of the source's key that are written with another type than they have, with the one they have."""
        written = [each for _, text in self.attributes for each in text.kinds()]
        return sorted({(name, source[name]) for name, kind in written if name in source and source[name] != kind})

    def mapped(self, key: ItemKey) -> ItemKey:
        """The key at the target; `PoisonRecord` where it can have none there."""
        return _mapped(self, key)

    def make(self, key: ItemKey) -> ItemKey:
        """The same, made anew."""
        if frozenset(key.names) != self.sources:
            raise PoisonRecord(
                f"The key mapping is made of {', '.join(sorted(self.sources))}, and the key of"
                f" {', '.join(key.names)}, so two items could have one key.",
                advice="Let transform.key hold every attribute of the source's key, and no other one.",
            )
        values = {name: (kind, value) for name, kind, value in key.parts}
        parts = [(name, *text.typed(values)) for name, text in self.attributes]
        for (name, kind, value), most in zip(parts, (LONGEST_PARTITION_KEY, LONGEST_SORT_KEY), strict=False):
            size = _size(kind, value)
            if size > most:
                raise PoisonRecord(
                    f"The mapped key of the item is too long: {name} has {size} bytes, and DynamoDB takes {most}.",
                    advice="Shorten the item's key at the source, or the text of transform.key.",
                )
        return ItemKey(tuple(sorted(parts)))

    def source_of(self, key: ItemKey) -> ItemKey | None:
        """The source's key that has this one at the target; None when none has."""
        if key.names != tuple(sorted(self.names)):
            return None
        held = {name: (kind, value) for name, kind, value in key.parts}
        found: dict[str, tuple[str, str]] = {}
        for name, text in self.attributes:
            values = text.values(*held[name])
            if values is None or any(found.setdefault(each, value) != value for each, value in values.items()):
                return None
        source = ItemKey(tuple(sorted((name, kind, value) for name, (kind, value) in found.items())))
        try:
            return source if self.mapped(source) == key else None
        except PoisonRecord:
            return None

    def meets(self, other: KeyMapping | None) -> bool:
        """Whether keys of both may be one; None stands for keys as they are."""
        if other is None or set(self.names) != set(other.names):
            return True
        theirs = dict(other.attributes)
        return not any(text.is_apart_from(theirs[name]) for name, text in self.attributes)


@lru_cache(maxsize=_KEYS_KEPT)
def _mapped(mapping: KeyMapping, key: ItemKey) -> ItemKey:
    return mapping.make(key)


def key_mapping(written: Mapping[str, str | Mapping[str, str]]) -> KeyMapping:
    """A mapping as the configuration writes it; ValueError says what is wrong with it."""
    attributes = []
    for name, value in written.items():
        try:
            attributes.append((name, KeyText(value) if isinstance(value, str) else _constant(value)))
        except ValueError as error:
            raise ValueError(f"key.{name}: {error}") from error
    if not any(text.names for _, text in attributes):
        raise ValueError("key holds no attribute of the source's key, so every item would have one key")
    return KeyMapping(tuple(attributes), msgspec.json.encode(dict(written)).decode())


def _constant(value: Mapping[str, str]) -> KeyText:
    return KeyText(value["constant"], constant=True)


def _parsed(text: str) -> tuple[list[str], list[tuple[str, str]]]:
    """Literals, one more than placeholders, and these: name and type, which is empty where it is not written."""
    literals, parts = [""], list[tuple[str, str]]()
    for literal, name, kind, conversion in Formatter().parse(text):
        literals[-1] += literal
        if name is None:
            continue
        if not name or conversion or (kind and kind not in _KINDS):
            raise ValueError(f"{text!r} has a placeholder that is none of {{name}}, {{name:S}}, {{name:N}}, {{name:B}}")
        parts.append((name, kind or ""))
        literals.append("")
    if not parts:
        raise ValueError(f"{text!r} has no placeholder; write {{constant: {text}}} if all items have it")
    between = literals[1:-1]
    if not all(between):
        raise ValueError(f"{text!r} has two placeholders with nothing between them, so two items could have one key")
    if any("%" in literal for literal in between):
        raise ValueError(f"{text!r} has a % between two placeholders, where it could be taken for an escaped character")
    return literals, parts


def _found(text: str, literal: str) -> int:
    """Where a literal text is first that is no part of an escaped character; -1: nowhere."""
    place = text.find(literal)
    while place >= 0 and "%" in text[max(place - 2, 0) : place]:
        place = text.find(literal, place + 1)
    return place


def _text_of(kind: str, value: str) -> str:
    """A value as text that equal values share."""
    if kind == "S":
        return value
    try:
        if kind == "B":
            return b64encode(b64decode(value, validate=True)).decode()
        number = _EXACT.create_decimal(value).normalize(_EXACT)
    except (binascii.Error, ValueError, DecimalException) as error:
        raise PoisonRecord(f"The key has a value that is not of type {kind}.") from error
    if not number.is_finite():
        raise PoisonRecord("The key has an invalid number.")
    return "0" if number == 0 else format(Decimal(number), "f")


def _size(kind: str, value: str) -> int:
    if kind == "N":
        return 0
    return len(value.encode()) if kind == "S" else len(value) * 3 // 4 - value[-2:].count("=")


def _percent(char: str) -> str:
    quoted = quote(char, safe="")
    return quoted if quoted != char else f"%{ord(char):02X}"
