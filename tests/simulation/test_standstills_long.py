"""More histories of `test_standstills`."""

from __future__ import annotations

import pytest

from tests.simulation import test_standstills as short

MORE_SEEDS = [*range(short.SEEDS, short.SEEDS + 6), 160, 204, 207, 273]
"""The last ones showed kinds of standstills, or of mistakes in the world, that no other one did."""

pytestmark = pytest.mark.usefixtures("virtual_time")


@pytest.mark.parametrize("seed", MORE_SEEDS)
async def test_more_rules_that_owe_something_and_do_not_move_are_told_why(seed: int) -> None:
    await short.test_a_rule_that_owes_something_and_does_not_move_is_told_why(seed)
