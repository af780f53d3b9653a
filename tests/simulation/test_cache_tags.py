"""Lists that are cached under tags, with a tag dropped at every point of a read, on a real server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
import redis
from msgspec import structs

from replicator.cache.scripts import LOOK_TAGGED
from replicator.domain.records import ChangeRecord
from replicator.laboratory.servers import Valkey
from tests.simulation.cache_tags_world import TagExplorer, TagScenario

pytestmark = pytest.mark.servers

WRITES = [
    pytest.param("AB"),
    *(pytest.param(kinds, marks=pytest.mark.long) for kinds in ("AA", "AD", "BA", "BB", "BD")),
]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[redis.Redis]:
    with Valkey.start(tmp_path_factory.mktemp("server")) as server, closing(redis.Redis.from_url(server.url)) as opened:
        yield opened


def stale(client: redis.Redis, scenario: TagScenario, **mutant: Any) -> str | None:
    states, complaint = TagExplorer(client, scenario, **mutant).run()
    assert complaint or states > 500, "a search that saw so little proves nothing"
    return complaint


@pytest.mark.parametrize("kinds", WRITES)
def test_no_list_stays_that_is_older_than_its_items(client: redis.Redis, kinds: str) -> None:
    assert stale(client, TagScenario(kinds)) is None


@pytest.mark.parametrize("kinds", ["ABA", "ADA"])
def test_nor_by_three_writes(client: redis.Redis, kinds: str) -> None:
    assert stale(client, TagScenario(kinds, readers=1)) is None


def test_a_tag_that_is_stored_behind_the_load_keeps_a_stale_list(client: redis.Redis) -> None:
    assert stale(client, TagScenario("AA", replays=0, evictions=0, tag_after_load=True))


def test_a_lost_epoch_that_comes_back_the_same_keeps_a_stale_list(client: redis.Redis) -> None:
    same = LOOK_TAGGED.replace("epoch = ARGV[1] .. stamp", "epoch = '0'")
    assert same != LOOK_TAGGED
    assert stale(client, TagScenario("AA", replays=0, evictions=0), look=same)


def test_a_tag_that_is_not_compared_keeps_a_stale_list(client: redis.Redis) -> None:
    every = LOOK_TAGGED.replace("entry:sub(1, #current) == current", "entry:sub(1, 2) == 'G:'")
    assert every != LOOK_TAGGED
    assert stale(client, TagScenario("AA", replays=0, evictions=0), look=every)


def test_dropping_only_the_tags_that_an_item_has_now_keeps_a_stale_list(client: redis.Redis) -> None:
    def without_old(record: ChangeRecord) -> ChangeRecord:
        return structs.replace(record, old=None)

    assert stale(client, TagScenario("AB", readers=1, replays=0, evictions=0), as_seen=without_old)


def test_dropping_before_the_replica_holds_the_write_keeps_a_stale_list(client: redis.Redis) -> None:
    assert stale(client, TagScenario("AA", readers=1, replays=0, evictions=0, after_replica=False))


def test_a_list_that_is_read_without_consistency_keeps_a_stale_list(client: redis.Redis) -> None:
    assert stale(client, TagScenario("AA", readers=1, replays=0, evictions=0, consistent_reads=False))
