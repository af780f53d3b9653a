"""Failures seen in production that concern shards, streams, checkpoints or leases: `pytest -k production_failure`.

The first test of a row shows that it does not happen here. The second one switches the guard off and shows that the
first one would see that: a scenario that stays green without its guard proves nothing.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.production.guarantee import Failure, GuaranteeBroken
from tests.production.table import FAILURES
from tests.virtual_time import VirtualTime

ROWS = {*range(1, 18), 20, 31, 32, 33, 34, 35, 36, 37, 38, 39}
"""The rows of the table of failures that are covered here."""

DOCUMENT = Path(__file__).parents[2] / "docs" / "failures.md"


def marks(failure: Failure) -> list[pytest.MarkDecorator]:
    return [pytest.mark.servers] if failure.server else []


async def play(failure: Failure, request: pytest.FixtureRequest) -> None:
    if not failure.real_time:
        VirtualTime.start(asyncio.get_running_loop())
    given = [request.getfixturevalue("dynamodb_url")] if failure.server else []
    await failure.scenario(*given)


@pytest.mark.parametrize("failure", [pytest.param(each, id=each.test_id, marks=marks(each)) for each in FAILURES])
async def test_production_failure_is_prevented(failure: Failure, request: pytest.FixtureRequest) -> None:
    await play(failure, request)


@pytest.mark.long
@pytest.mark.parametrize(
    ("failure", "mutant"),
    [
        pytest.param(each, mutant, id=f"{each.test_id}-{mutant}", marks=marks(each))
        for each in FAILURES
        for mutant in each.mutants
    ],
)
async def test_production_failure_mutant_is_caught(
    failure: Failure, mutant: str, request: pytest.FixtureRequest
) -> None:
    with failure.mutants[mutant].applied(), pytest.raises(GuaranteeBroken):
        await play(failure, request)


def test_every_production_failure_has_a_row_and_a_mutant() -> None:
    assert {each.number for each in FAILURES} == ROWS
    assert len({each.test_id for each in FAILURES}) == len(FAILURES)
    assert all(each.mutants for each in FAILURES)


def test_every_production_failure_is_documented() -> None:
    text = DOCUMENT.read_text()
    assert [each.test_id for each in FAILURES if f"`{each.test_id}`" not in text] == []
