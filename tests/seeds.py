"""Seeds of tests that live through random histories: few of them each time, many in the long run."""

from __future__ import annotations

import pytest
from _pytest.mark import ParameterSet


def seeds(few: int, many: int) -> list[ParameterSet]:
    """The first `few` for `make test`, the others up to `many` for `make test-long`."""
    return [pytest.param(seed, marks=[pytest.mark.long] if seed >= few else []) for seed in range(many)]
