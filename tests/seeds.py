"""What tests are given: little of it each time, everything in the long run."""

from __future__ import annotations

import os
from collections.abc import Iterable

import pytest
from _pytest.mark import ParameterSet


def seeds(few: int, many: int) -> list[ParameterSet]:
    """Seeds of random histories: the first `few` for `make test`, the others up to `many` for `make test-long`.

    More of them as HISTORIES says: `make test-long HISTORIES=500 ARGS=tests/simulation`.
    """
    return first(few, range(max(many, int(os.environ.get("HISTORIES") or 0))))


def first(few: int, values: Iterable[object]) -> list[ParameterSet]:
    """The first `few` of these for `make test`, the others for `make test-long`; a tuple is several parameters."""
    return [
        pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=[pytest.mark.long] if at >= few else [])
        for at, value in enumerate(values)
    ]
