"""Items, numbers and records for property tests."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from replicator.domain.image import Image

Typed = dict[str, Any]

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=4).filter(
    lambda name: name != "_rep" and not name.startswith("aws:rep:")
)


@st.composite
def numbers(draw: st.DrawFn) -> str:
    """Numbers as DynamoDB writes them: up to 38 digits, magnitude up to 1e125, with or without a fraction."""
    digits = draw(st.text("0123456789", min_size=1, max_size=38))
    point = draw(st.integers(0, len(digits)))
    exponent = draw(st.sampled_from(["", "E+80", "e-80"]))
    sign = draw(st.sampled_from(["", "-"]))
    return sign + (digits[:point] or "0") + ("." + digits[point:] if digits[point:] else "") + exponent


def _binary(value: bytes) -> str:
    return base64.b64encode(value).decode()


def values(
    *, strings: st.SearchStrategy[str] = text, figures: st.SearchStrategy[str] | None = None
) -> st.SearchStrategy[Typed]:
    """Typed attribute values of every kind."""
    figures = numbers() if figures is None else figures
    binaries = st.binary(max_size=4).map(_binary)
    flat = st.one_of(
        strings.map(lambda value: {"S": value}),
        figures.map(lambda value: {"N": value}),
        binaries.map(lambda value: {"B": value}),
        st.booleans().map(lambda value: {"BOOL": value}),
        st.just({"NULL": True}),
        st.lists(strings, min_size=1, max_size=3, unique=True).map(lambda value: {"SS": value}),
        st.lists(figures, min_size=1, max_size=3, unique_by=Decimal).map(lambda value: {"NS": value}),
        st.lists(binaries, min_size=1, max_size=3, unique=True).map(lambda value: {"BS": value}),
    )
    return st.recursive(
        flat,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3).map(lambda value: {"L": value}),
            st.dictionaries(strings, inner, max_size=3).map(lambda value: {"M": value}),
        ),
        max_leaves=6,
    )


items = st.dictionaries(names, values(), max_size=4).map(lambda item: {"pk": {"S": "k"}, **item})


def image(item: Mapping[str, Typed]) -> Image:
    """An item as the wire carries it."""
    return Image(json.dumps(item, separators=(",", ":"), ensure_ascii=False).encode())
