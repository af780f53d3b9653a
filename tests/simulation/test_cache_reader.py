"""The reader library and the daemon's actions under every interleaving, on a real server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
import redis

from replicator.cache.reading import Fill, Look, Request
from replicator.cache.scripts import FILL_HASH, LOOK, LOOK_HASH
from replicator.domain.cache_keys import CacheVerb
from replicator.domain.cache_values import Shape
from replicator.domain.values import replace
from replicator.domain.versions import UNSTAMPED
from replicator.laboratory.servers import Valkey
from tests.simulation.cache_reader_world import ReaderExplorer
from tests.simulation.cache_world import CacheScenario

pytestmark = pytest.mark.servers
VERBS = pytest.mark.parametrize("verb", [CacheVerb.INVALIDATE, CacheVerb.REFRESH], ids=lambda verb: verb.value)
WITHOUT_TIME = LOOK.replace(" .. '.' .. now[1] .. '.' .. now[2]", " .. '.'")
PLAIN_SET = "redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) return 1"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[redis.Redis]:
    with Valkey.start(tmp_path_factory.mktemp("server")) as server, closing(redis.Redis.from_url(server.url)) as opened:
        yield opened


def stale(client: redis.Redis, scenario: CacheScenario, **mutant: Any) -> str | None:
    states, complaint = ReaderExplorer(client, scenario, **mutant).run()
    assert complaint or states > 500, "a search that saw so little proves nothing"
    return complaint


@pytest.mark.parametrize(
    ("kinds", "versioned", "verb"),
    [
        pytest.param(
            kinds,
            versioned,
            verb,
            id=f"{'' if versioned else 'un'}versioned-{kinds}-{verb.value}",
            marks=[] if (kinds, versioned, verb) == ("PD", True, CacheVerb.REFRESH) else pytest.mark.long,
        )
        for verb in (CacheVerb.INVALIDATE, CacheVerb.REFRESH)
        for kinds in ("PP", "PD")
        for versioned in (True, False)
    ],
)
def test_no_reader_leaves_anything_stale(client: redis.Redis, verb: CacheVerb, kinds: str, versioned: bool) -> None:
    assert stale(client, CacheScenario(kinds, verb), versioned=versioned) is None


@pytest.mark.long
@pytest.mark.parametrize("kinds", ["PP", "PD"])
def test_nor_does_a_daemon_that_fills_what_is_absent(client: redis.Redis, kinds: str) -> None:
    assert stale(client, CacheScenario(kinds, CacheVerb.WRITE_THROUGH, readers=1)) is None


@pytest.mark.parametrize("verb", [CacheVerb.REFRESH, pytest.param(CacheVerb.WRITE_THROUGH, marks=pytest.mark.long)])
def test_nor_does_one_of_entries_that_are_hashes(client: redis.Redis, verb: CacheVerb) -> None:
    assert stale(client, CacheScenario("PDP", verb, readers=1, shape=Shape("hash"))) is None


@pytest.mark.parametrize("verb", [CacheVerb.REFRESH, pytest.param(CacheVerb.WRITE_THROUGH, marks=pytest.mark.long)])
def test_nor_does_a_mesh_that_fills_what_it_dropped(client: redis.Redis, verb: CacheVerb) -> None:
    assert stale(client, CacheScenario("PP", verb, readers=1, evictions=0, refills=True)) is None


def test_a_hash_that_is_set_without_its_lease_stays_stale(client: redis.Redis) -> None:
    held = FILL_HASH.strip().splitlines()[0]
    assert held.endswith("return 0 end")
    scenario = CacheScenario("PP", CacheVerb.REFRESH, readers=1, replays=0, evictions=0, shape=Shape("hash"))
    assert stale(client, scenario, look=LOOK_HASH, fill=FILL_HASH.replace(held, ""))


@VERBS
def test_an_absent_item_that_comes_back_is_seen(client: redis.Redis, verb: CacheVerb) -> None:
    assert stale(client, CacheScenario("PDP", verb, readers=1)) is None


@VERBS
def test_plain_look_aside_keeps_a_stale_entry(client: redis.Redis, verb: CacheVerb) -> None:
    assert stale(client, CacheScenario("PP", verb, replays=0, evictions=0), fill=PLAIN_SET)


@VERBS
def test_a_table_read_without_consistency_keeps_a_stale_entry(client: redis.Redis, verb: CacheVerb) -> None:
    assert stale(client, CacheScenario("PP", verb, consistent_reads=False))


@VERBS
def test_a_lease_that_every_reader_shares_keeps_a_stale_entry(client: redis.Redis, verb: CacheVerb) -> None:
    def shared(request: Request) -> Request:
        return replace(request, token="one") if isinstance(request, Look) else request

    assert stale(client, CacheScenario("PP", verb), change=shared, look=WITHOUT_TIME)


@VERBS
def test_a_look_that_runs_twice_and_gives_one_lease_keeps_a_stale_entry(client: redis.Redis, verb: CacheVerb) -> None:
    assert stale(client, CacheScenario("PP", verb, readers=1, replays=0, evictions=0), look=WITHOUT_TIME)


@pytest.mark.parametrize(
    ("marker", "versioned"), [(b"T:", True), (b"V:", False)], ids=["absence as version 0", "a value as version 0"]
)
def test_version_zero_for_what_has_none_lets_a_replay_win(client: redis.Redis, marker: bytes, versioned: bool) -> None:
    """Why absence, and values without a version, carry none."""

    def zeros(request: Request) -> Request:
        if isinstance(request, Fill) and request.entry[:3].rstrip(b"|") == marker:
            return replace(request, entry=marker + UNSTAMPED.encode() + request.entry[2:])
        return request

    scenario = CacheScenario("PD" if marker == b"T:" else "PP", CacheVerb.REFRESH)
    assert stale(client, scenario, versioned=versioned, change=zeros)
