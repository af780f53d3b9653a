"""What holds, and what does not."""

from __future__ import annotations

import pytest

from replicator.domain import errors
from replicator.domain.errors import ReplicatorError, TableMissing, Unreachable, WorldMismatch
from replicator.domain.held import Cause, HeldId, Hold, cause_of
from replicator.domain.identifiers import RegionId, RuleName, TableName
from replicator.domain.rules import Rule, Target
from replicator.observability.held_rows import Held, Met, is_held, rows_of
from replicator.ports.services import ServiceId, ServiceKind, source_service

US, EU, AP = RegionId("us"), RegionId("eu"), RegionId("ap")
NAME, ORDERS = RuleName("orders"), TableName("orders")
TO_EU, TO_AP = Target(NAME, EU, ORDERS), Target(NAME, AP, ORDERS)
RULE = Rule(NAME, US, ORDERS, (TO_EU, TO_AP))
WHOLE = HeldId(NAME, ORDERS)
AT_EU, AT_AP = (HeldId(NAME, ORDERS, target.target_id) for target in (TO_EU, TO_AP))


@pytest.mark.parametrize(
    ("kind", "cause"),
    [
        (errors.TableMissing, Cause.MISSING),
        (errors.AccessRefused, Cause.DENIED),
        (errors.SchemaMismatch, Cause.SCHEMA),
        (errors.StreamUnusable, Cause.STREAM),
        (errors.TableReplaced, Cause.REPLACED),
        (errors.WorldMismatch, Cause.MISMATCH),
        (errors.Unreachable, None),
        (errors.Throttled, None),
        (errors.PoisonRecord, None),
        (errors.UnstampedItem, None),
        (errors.RecordsTrimmed, None),
        (errors.LeaseLost, None),
    ],
)
def test_only_what_the_world_has_wrong_holds(kind: type[ReplicatorError], cause: Cause | None) -> None:
    assert cause_of(kind("Something.")) is cause
    assert Hold(WHOLE, kind("Something.")).cause is (cause or Cause.MISMATCH)


def met(about: ServiceId | tuple[TableName, Target], error: ReplicatorError) -> list[Met]:
    return [Met(about, error, 5.0)]


def test_what_a_look_found_comes_before_what_was_met_and_a_rule_before_its_targets() -> None:
    told = [Held(Hold(AT_EU, TableMissing("Looked.")), 1.0)]
    (row,) = rows_of([RULE], told, met((ORDERS, TO_EU), WorldMismatch("Met.")))
    assert (row.held, row.region, row.cause, row.error.message, row.since) == (AT_EU, "eu", "missing", "Looked.", 1.0)
    assert row.sentence.startswith("orders/replica/eu:orders on orders is held: Looked. Create it")
    told = [Held(Hold(WHOLE, TableMissing("Looked.")), 1.0)]
    (row,) = rows_of([RULE], told, met((ORDERS, TO_EU), WorldMismatch("Met.")))
    assert (row.held, row.region) == (WHOLE, "")
    assert row.sentence.startswith("orders on orders is held: Looked.")
    told = [Held(Hold(HeldId(NAME, TableName("")), TableMissing("Looked.")), 1.0)]
    assert rows_of([], told, [])[0].sentence.startswith("orders is held: Looked.")


def test_trouble_holds_only_what_meets_it_and_only_when_it_is_the_worlds() -> None:
    other = Rule(RuleName("other"), US, TableName("other"), ())
    assert rows_of([RULE], [], met((ORDERS, TO_EU), Unreachable("No answer."))) == []
    assert [row.held for row in rows_of([RULE], [], met((ORDERS, TO_AP), TableMissing("Gone.")))] == [AT_AP]
    source = source_service(ServiceKind.SOURCE, US, ORDERS)
    (row,) = rows_of([RULE, other], [], met(source, TableMissing("Gone.")))
    assert (row.held, row.region) == (WHOLE, "us")
    assert rows_of([RULE, other], [], met(source_service(ServiceKind.ROWS, US, ORDERS), TableMissing("Gone."))) == []
    of_target = ServiceId(ServiceKind.TARGET, US, ORDERS, rule=NAME, target=TO_AP.target_id)
    assert [row.held for row in rows_of([RULE], [], met(of_target, TableMissing("Gone.")))] == [AT_AP]
    other_rules = ServiceId(ServiceKind.TARGET, US, ORDERS, rule=RuleName("x"), target=TO_AP.target_id)
    assert rows_of([RULE], [], met(other_rules, TableMissing(""))) == []


def test_a_rule_is_held_when_all_of_it_or_each_of_its_targets_is() -> None:
    def rows(*ids: HeldId) -> bool:
        return is_held(RULE, rows_of([RULE], [Held(Hold(each, TableMissing("Gone.")), 0.0) for each in ids], []))

    assert [rows(), rows(AT_EU), rows(AT_EU, AT_AP), rows(WHOLE)] == [False, False, True, True]
