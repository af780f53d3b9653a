"""A changed configuration while other looks are under way, and one that has a fault."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from replicator.app import held_rules
from replicator.app.held_rules import HeldRules
from replicator.app.preflight import Start
from replicator.app.reload import Reload
from replicator.app.reloaded_rules import ReloadedRules
from replicator.app.rule_preflight import Findings, Premises, rule_id
from replicator.domain.errors import ReplicatorError, TableMissing
from replicator.domain.held import Hold
from replicator.engine.applying.gate import Gates
from replicator.settings import Settings
from replicator.settings.changes import changes

ORDERS = {"name": "orders", "table": "orders", "source": "us", "replicas": ["eu"]}
LATER = {**ORDERS, "name": "later", "table": "later"}


def settings(*rules: dict[str, Any]) -> Settings:
    regions = {"us": {"region": "us-east-1"}, "eu": {"region": "eu-west-1"}}
    return Settings.model_validate(
        {"group": "test", "regions": regions, "coordination": {"region": "us"}, "rules": [*rules]}
    )


class Told:
    """What was told to be held."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def held(self, holds: list[Hold]) -> None:
        self.names = [str(hold.held.rule) for hold in holds]


class Finder:
    def __init__(self) -> None:
        self.failed: dict[str, ReplicatorError] = {}


def holding(told: Told) -> HeldRules:
    """Two rules, of which one is held."""
    both = settings(ORDERS, LATER)
    premises = Premises(both, {}, {}, *cast("Any", [None, None, None, Finder(), None]))
    held = Hold(rule_id(both.rules[1]), TableMissing("Gone."))
    return HeldRules(premises, Start(cast("Any", None), [held]), Gates(), cast("Any", told), lambda: both)


@pytest.mark.parametrize("during", ["look", "examine"])
async def test_a_look_says_nothing_of_a_configuration_that_came_meanwhile(
    monkeypatch: pytest.MonkeyPatch, during: str
) -> None:
    told = Told()
    rules = holding(told)
    assert told.names == ["later"]
    examined: list[str] = []

    async def look(*_: object, **__: object) -> None:
        if during == "look":
            rules.rewritten(settings(ORDERS))

    async def examine(premises: Premises, _: object, rule: Any, **__: object) -> Findings:
        examined.append(next(each.name for each in premises.settings.rules if each.name == rule.name))
        if during == "examine":
            rules.rewritten(settings(ORDERS))
        return Findings([Hold(rule_id(rule), TableMissing("Gone."))])

    monkeypatch.setattr(held_rules, "look", look)
    monkeypatch.setattr(held_rules, "examine", examine)
    await rules.look()
    assert (told.names, examined) == ([], [] if during == "look" else ["later"])


@pytest.mark.parametrize("error", [RuntimeError("secret"), ExceptionGroup("secret", [OSError("secret")])])
async def test_a_look_that_has_a_fault_forbids_and_ends_nothing(error: Exception) -> None:
    class Openings:
        @asynccontextmanager
        async def beyond(self, _: Settings) -> AsyncIterator[None]:
            await _failing(error)
            yield

    before, wanted = settings(ORDERS), settings(ORDERS, LATER)
    reloaded = ReloadedRules(*cast("Any", [None, Openings(), None, None, None, None, None, lambda: before]))
    (refused,) = await reloaded.take_up(wanted, changes(before, wanted))
    assert type(error).__name__ in refused.sentence
    assert "secret" not in refused.sentence


async def _failing(error: Exception) -> None:
    raise error


async def test_a_file_that_breaks_its_reader_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    class Board:
        def refuses_configuration(self, error: ReplicatorError | None) -> None:
            assert error is not None

    def load(_: object) -> Settings:
        raise MemoryError

    monkeypatch.setattr("replicator.app.reload.load", load)
    outcome = await Reload(tmp_path / "none", settings(ORDERS), cast("Any", Board())).look()
    assert (outcome.result, outcome.reasons) == ("refused", ("It cannot be read (MemoryError).",))
