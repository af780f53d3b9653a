"""The commands that the user of a cache needs."""

from __future__ import annotations

from replicator.domain.cache_commands import CacheUse
from replicator.domain.cache_urls import CachePlace, parse_cache_url


def test_what_is_used_is_named_once() -> None:
    every = CacheUse(
        ("refresh", "invalidate"),
        ("order:*", "order:*"),
        scans=True,
        drops_database=True,
        reads_again=True,
        holds_events=True,
        database=1,
        is_cluster=True,
        is_named=True,
        is_pinged=True,
    )
    assert every.acl("rep") == (
        "ACL SETUSER rep reset on >PASSWORD ~order:* +info +unlink +get +set +eval +evalsha +getrange +scan +flushdb"
        " +xadd +type +select +asking +cluster|slots +cluster|info +client|setname +ping"
    )
    assert CacheUse((), ("events",), holds_events=True).commands == ("info", "xadd", "type")


def test_a_url_names_a_database_and_options() -> None:
    assert parse_cache_url("redis://a:1/3?client_name=x") == CachePlace(3, ("client_name",))
    assert parse_cache_url("redis://a:1/3?db=4").database == 4
    assert parse_cache_url("unix:///run/valkey.sock?db=2").database == 2
    assert parse_cache_url("unix:///run/1").database == 0
    assert parse_cache_url("redis+sentinel://a/main/5?ssl=1") == CachePlace(5, ("ssl",))
    assert parse_cache_url("redis+cluster://a?client_name=x") == CachePlace(0, ("client_name",), is_cluster=True)


def test_what_is_told_takes_a_channel_or_a_stream_of_its_own_name() -> None:
    use = CacheUse((), (), channels=["news*"], streams=["log[1]"])
    assert use.acl("rep") == (
        r"ACL SETUSER rep reset on >PASSWORD ~log\[1\] &news\* +info +eval +evalsha +publish +xadd"
    )
