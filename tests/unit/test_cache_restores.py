"""What is done again when a cache may have gone back."""

from __future__ import annotations

import pytest

from replicator.domain.cache_debt import DebtPolicy, OnFull
from replicator.domain.cache_restores import Again, CacheServer, CacheServers, OnRestore, again
from replicator.domain.values import replace

SERVER = CacheServer("b", 1.0, 10, logs=False)
TOOK_OVER = replace(SERVER, uptime_seconds=100.0)


def test_a_flush_drops_what_rules_of_before_wrote_too_and_is_not_made_where_others_have_entries() -> None:
    before = DebtPolicy(patterns=("a:*",))
    both = before.along(DebtPolicy(patterns=("b:*",)))
    assert (both.patterns, both.may_flush, both.on_full) == (("a:*", "b:*"), True, OnFull.FLUSH)
    assert both.along(before) is both
    every = before.along(DebtPolicy(patterns=("*",), may_flush=False))
    assert (every.may_flush, every.on_full) == (False, OnFull.WAIT)


@pytest.mark.parametrize(
    ("policy", "before", "server", "remembered", "what"),
    [
        (OnRestore.DEBT, None, SERVER, True, Again.NOTHING),
        (OnRestore.DEBT, "b", SERVER, True, Again.NOTHING),
        (OnRestore.DEBT, "a", replace(SERVER, entries=0), False, Again.NOTHING),
        (OnRestore.IGNORE, "a", SERVER, True, Again.NOTHING),
        (OnRestore.DEBT, "a", SERVER, True, Again.ALL),
        (OnRestore.DEBT, "a", replace(SERVER, logs=True), True, Again.RECENT),
        (OnRestore.DEBT, "a", TOOK_OVER, True, Again.RECENT),
        (OnRestore.DEBT, "a", TOOK_OVER, False, Again.ALL),
        (OnRestore.FLUSH, "a", TOOK_OVER, True, Again.ALL),
    ],
)
def test_what_is_done_again(
    policy: OnRestore, before: str | None, server: CacheServer, remembered: bool, what: Again
) -> None:
    assert again(policy, before, CacheServers((server,)), 20.0, remembered=remembered) is what


def test_of_a_cluster_the_server_that_asks_for_most_decides() -> None:
    known, took_over, started = (replace(SERVER, run_id=name) for name in "abc")
    took_over = replace(took_over, uptime_seconds=100.0)
    for servers, what in (
        ((known,), Again.NOTHING),
        ((known, took_over), Again.RECENT),
        ((started, known, took_over), Again.ALL),
    ):
        assert again(OnRestore.DEBT, "a,z", CacheServers(servers), 20.0, remembered=True) is what


def test_a_server_that_is_silent_stays_known_and_one_that_is_gone_does_not() -> None:
    said = (replace(SERVER, run_id="c"), replace(SERVER, run_id="a"))
    assert CacheServers(said).known("a,z") == "a,c"
    assert CacheServers(said, silent=1).known("a,z") == "a,c,z"
    assert CacheServers(said, silent=1).known(None) == "a,c"
