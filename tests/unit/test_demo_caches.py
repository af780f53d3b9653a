"""The demo of caches knows from outside how stale a read was, and what stays stale."""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec
import pytest

from replicator.cache.codecs import wire_item
from replicator.demo.caches.readers import payload_of
from replicator.demo.caches.report import CacheReport
from replicator.demo.caches.run import _is_current
from replicator.demo.caches.truth import Shown, Staleness
from replicator.demo.compare import Difference, Findings
from replicator.demo.items import KeyState, hot_keyspace
from replicator.demo.layout import ORDERS, cached
from replicator.domain.image import Image


def key() -> KeyState:
    return KeyState(ORDERS, {"customer": {"S": "c"}, "order": {"N": "1"}})


def test_a_read_is_stale_since_the_table_showed_the_first_newer_write() -> None:
    shown, state = Shown(), key()
    for number, at in ((1, 10.0), (1, 11.0), (3, 12.0), (4, 20.0)):
        shown.saw(state, number, at)
    assert shown.stale_for(state, 4, 30.0) == 0
    assert shown.stale_for(state, 3, 30.0) == 10
    assert shown.stale_for(state, 2, 30.0) == 18
    assert shown.stale_for(state, 1, 12.5) == 0.5
    assert shown.stale_for(state, 1, 11.5) == 0, "nothing newer was shown when it began"
    assert shown.stale_for(state, 9, 30.0) == 0, "shown to the reader before the watcher looked"
    assert Shown().stale_for(state, 1, 30.0) == 0


def test_absence_is_what_the_last_delete_left() -> None:
    shown, state = Shown(), key()
    shown.saw(state, None, 1.0)
    assert shown.stale_for(state, None, 2.0) == 0
    shown.saw(state, 1, 3.0)
    assert shown.stale_for(state, None, 4.0) == 1, "there is an item now"
    state.deletes += [2, 4]
    shown.saw(state, None, 5.0)
    assert shown.stale_for(state, 1, 6.0) == 1
    assert shown.stale_for(state, None, 6.0) == 0
    shown.saw(state, None, 7.0)
    assert shown.stale_for(state, 3, 8.0) == 0, "the second delete may not be there yet"
    shown.saw(state, 5, 9.0)
    assert shown.stale_for(state, 3, 10.0) == 1
    assert shown.stale_for(state, None, 10.0) == 1


def test_nines_count_reads_beyond_a_horizon() -> None:
    staleness = Staleness()
    for _ in range(99):
        staleness.take(0.5)
    assert staleness.nines(1.0) == pytest.approx(1.9956, abs=1e-3)
    assert staleness.as_json((1.0,))["1"] == {"reads": 99, "stale": 0, "nines": 2.0, "at_least": True}
    staleness.take(5.5)
    assert [staleness.beyond[horizon] for horizon in (1.0, 5.0, 60.0)] == [1, 1, 0]
    assert staleness.nines(1.0) == pytest.approx(2.0)
    one, sixty = staleness.lines((1.0, 60.0))
    assert one == "stale by more than 1 s: 1 of 100 reads, 2.0 nines"
    assert sixty == "stale by more than 60 s: 0 of 100 reads, at least 2.0 nines"


def test_an_entry_is_current_when_it_holds_what_the_table_holds() -> None:
    item: dict[str, Any] = {"pk": {"S": "a"}, "n": {"N": "1.0"}, "_rep": {"S": "0" * 56}}
    image, payload = Image(msgspec.json.encode(item)), wire_item(item | {"n": {"N": "1"}})
    stored = [payload, b"V:1|" + payload, b"L:x.1.2|V:1|" + payload]
    assert [_is_current(payload_of(entry), image) for entry in stored] == [True] * 3
    assert not _is_current(payload_of(wire_item(item | {"n": {"N": "2"}})), image)
    assert not _is_current(payload_of(b"T:1"), image)
    assert _is_current(payload_of(b"T:1"), None)
    assert not _is_current(payload, None)
    assert not _is_current(b"{", image)


def report(**changed: Any) -> CacheReport:
    given: dict[str, Any] = {
        "action": "refresh", "plain": False, "seconds": 1.0, "duration": 20.0, "writers": None, "crowds": (),
        "tables": Findings(), "entries": {"eu_cache": 50, "ap_cache": 41}, "stale": [], "keys": 80, "caught_up": True,
        "failures": [], "failed_as_meant": True, "daemon_exit": 0,
    }  # fmt: skip
    return CacheReport(**given | changed)


@pytest.mark.parametrize(
    ("changed", "verdict"),
    [
        ({}, "never stale for good"),
        ({"stale": [Difference("eu_cache", "order:1:1", "is stale")]}, "1 entries stay stale"),
        ({"tables": Findings(differences=[Difference("eu", "a", "is missing")])}, "the tables differ"),
        ({"caught_up": False}, "not drained in time"),
        ({"entries": {"eu_cache": 80, "ap_cache": 39}}, "too little compared"),
        ({"failed_as_meant": False}, "never stale for good, but not every failure happened as meant"),
        ({"daemon_exit": 70}, "never stale for good, but the daemon did not stop cleanly"),
    ],
)
def test_the_verdict_is_good_only_when_nothing_stays_stale(changed: dict[str, Any], verdict: str) -> None:
    assert report(**changed).verdict == verdict
    assert report(**changed).exit_code == (0 if not changed else 1)


def test_a_report_tells_of_the_horizons_that_fit() -> None:
    assert report().horizons == (1.0, 5.0)
    assert report(duration=60.0).horizons == (1.0, 5.0, 60.0)


def test_the_hot_keys_are_orders_whose_caches_have_one_action() -> None:
    (table,) = cached("invalidate").tables
    keys = hot_keyspace(table, 10, Random(1))
    assert len(keys.keys) == 10
    assert {cache.action for cache in table.caches} == {"invalidate"}
    assert {state.table.rule for state in keys.keys} == {"orders"}
