"""What tests are given: little of it each time, everything in the long run."""

from __future__ import annotations

import os
from collections.abc import Iterable

import pytest
from _pytest.mark import ParameterSet

HISTORIES = int(os.environ.get("HISTORIES") or 0)
"""So many seeds and examples at least: `make test-long HISTORIES=500 ARGS=tests/simulation`."""


def seeds(few: int, many: int) -> list[ParameterSet]:
    """Seeds of random histories: the first `few` for `make test`, the others up to `many` for `make test-long`."""
    return first(few, range(max(many, HISTORIES)))


def first(few: int, values: Iterable[object]) -> list[ParameterSet]:
    """The first `few` of these for `make test`, the others for `make test-long`; a tuple is several parameters."""
    return [
        pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=[pytest.mark.long] if at >= few else [])
        for at, value in enumerate(values)
    ]
