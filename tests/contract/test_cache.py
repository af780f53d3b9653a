"""The contract of a cache, in memory and on a real Valkey."""

from __future__ import annotations

from random import Random

import pytest

from replicator.domain.cache_keys import CacheAction, Invalidate, Publication, Refill, Refresh, publish
from replicator.domain.cache_values import hash_payload
from replicator.domain.copying.entries import EntryState, entry_state
from replicator.domain.versions import UNSTAMPED, ordered_version
from replicator.laboratory.memory import acted, value_entry
from replicator.ports.targets import ENTRY_HEAD, CacheFill
from tests.contract.worlds import CacheBench, fresh, redis_bench

V1, V2, V3 = (ordered_version(0, 1_700_000_000_000, number) for number in (1, 2, 3))
PAYLOAD = '{"pk":{"S":"ü|\\n"}}'.encode()
HOUR_MS = 3_600_000


def refresh(key: str, version: str = V2, payload: bytes | None = PAYLOAD) -> Refresh:
    return Refresh(key, version, payload, HOUR_MS)


async def after(bench: CacheBench, entry: bytes | None, action: CacheAction) -> tuple[bytes | None, int]:
    """What becomes of one entry by one action, and how many entries the cache says it changed."""
    if entry is not None:
        await bench.seed({action.key: entry})
    answer = await bench.cache.apply([action])
    assert not answer.refused
    return (await bench.found([action.key]))[action.key], answer.changed


@pytest.mark.parametrize("payload", [PAYLOAD, None], ids=["value", "deleted"])
async def test_a_refresh_creates_nothing(cache_bench: CacheBench, payload: bytes | None) -> None:
    assert await after(cache_bench, None, refresh(fresh("k"), payload=payload)) == (None, 0)


@pytest.mark.parametrize("payload", [PAYLOAD, None], ids=["value", "deleted"])
async def test_a_refresh_drops_the_lease_of_a_reader(cache_bench: CacheBench, payload: bytes | None) -> None:
    assert await after(cache_bench, b"L:token", refresh(fresh("k"), payload=payload)) == (None, 1)


@pytest.mark.parametrize(
    "entry",
    [value_entry(V1, b"{}"), b"T:" + V1.encode(), value_entry(UNSTAMPED, b"{}")],
    ids=["value", "marker", "zeros"],
)
async def test_a_refresh_replaces_what_is_older(cache_bench: CacheBench, entry: bytes) -> None:
    assert await after(cache_bench, entry, refresh(fresh("k"))) == (b"V:" + V2.encode() + b"|" + PAYLOAD, 1)
    assert await after(cache_bench, entry, refresh(fresh("k"), payload=None)) == (b"T:" + V2.encode(), 1)


@pytest.mark.parametrize("version", [V2, V3], ids=["equal", "newer"])
@pytest.mark.parametrize("payload", [PAYLOAD, None], ids=["value", "deleted"])
async def test_a_refresh_keeps_what_is_not_older(cache_bench: CacheBench, version: str, payload: bytes | None) -> None:
    for entry in (value_entry(version, b"{}"), b"T:" + version.encode()):
        assert await after(cache_bench, entry, refresh(fresh("k"), payload=payload)) == (entry, 0)


async def test_a_refresh_drops_what_is_no_entry_of_ours(cache_bench: CacheBench) -> None:
    other_lengths = (b"V:zzz-unversioned", b"V:" + b"9" * 60 + b"|{}", b"T:" + b"9" * 60, b"V:" + b"9" * 56, b"T:9")
    for entry in (b"hello", b"", b"V", b'{"json":1}', *other_lengths):
        assert await after(cache_bench, entry, refresh(fresh("k"))) == (None, 1)


async def test_a_refreshed_entry_lives_as_long_as_it_may(cache_bench: CacheBench) -> None:
    key = fresh("k")
    await after(cache_bench, value_entry(V1, b"{}"), refresh(key))
    assert 0 < await cache_bench.life_ms(key) <= HOUR_MS


async def test_an_entry_that_is_kept_keeps_its_life(cache_bench: CacheBench) -> None:
    key = fresh("k")
    await after(cache_bench, value_entry(V3, b"{}"), refresh(key))
    assert await cache_bench.life_ms(key) < 0


@pytest.mark.parametrize("entry", [value_entry(V3, b"{}"), b"T:" + V3.encode(), b"L:token", b"hello"])
async def test_an_invalidation_drops_whatever_stands_there(cache_bench: CacheBench, entry: bytes) -> None:
    assert await after(cache_bench, entry, Invalidate(fresh("k"))) == (None, 1)


async def test_an_invalidation_of_nothing_changes_nothing(cache_bench: CacheBench) -> None:
    assert await after(cache_bench, None, Invalidate(fresh("k"))) == (None, 0)


def through(key: str, version: str = V2, payload: bytes | None = PAYLOAD) -> Refresh:
    return Refresh(key, version, payload, HOUR_MS, through=True)


async def test_a_write_through_takes_the_lease_of_what_is_absent_and_fills_under_it(cache_bench: CacheBench) -> None:
    key, other, lost = fresh("k"), fresh("k"), fresh("k")
    await cache_bench.seed({other: value_entry(V1, b"{}")})
    answer = await cache_bench.cache.apply([through(key), through(other), through(lost, payload=None)])
    assert answer.changed == 3
    assert set(answer.leased) == {key, lost}
    assert (await cache_bench.found([key]))[key] == b"L:" + answer.leased[key].encode()
    await cache_bench.cache.apply([Invalidate(lost)])
    fills = [CacheFill(each, answer.leased[each], b"V:|new", HOUR_MS) for each in (key, lost)]
    assert await cache_bench.cache.fill(fills) == 1
    found = await cache_bench.found([key, other, lost])
    assert found == {key: b"V:|new", other: value_entry(V2, PAYLOAD), lost: None}
    assert HOUR_MS - 600_000 < await cache_bench.life_ms(key) <= HOUR_MS
    assert await cache_bench.cache.fill(fills) == 0, "a lease is used once"


async def test_a_write_through_does_to_an_entry_what_a_refresh_does(cache_bench: CacheBench) -> None:
    for entry in (b"L:token", b"V:|x", value_entry(V1, b"{}"), value_entry(V3, b"{}"), b"T:" + V1.encode()):
        for payload in (PAYLOAD, None):
            refreshed = await after(cache_bench, entry, refresh(fresh("k"), payload=payload))
            assert await after(cache_bench, entry, through(fresh("k"), payload=payload)) == refreshed


@pytest.mark.parametrize("through", [True, False])
async def test_a_refill_makes_every_entry_a_lease(cache_bench: CacheBench, through: bool) -> None:
    absent, value, lease = fresh("k"), fresh("k"), fresh("k")
    await cache_bench.seed({value: value_entry(V3, b"{}"), lease: b"L:reader"})
    answer = await cache_bench.cache.apply([Refill(key, through) for key in (absent, value, lease)])
    assert set(answer.leased) == {value, lease} | ({absent} if through else set())
    assert answer.changed == len(answer.leased)
    found = await cache_bench.found([absent, value, lease])
    assert {key: entry for key, entry in found.items() if entry} == {
        key: b"L:" + token.encode() for key, token in answer.leased.items()
    }
    assert await cache_bench.cache.fill([CacheFill(value, answer.leased[value], b"V:|new", HOUR_MS)]) == 1
    nothing = await cache_bench.cache.apply([Refill(fresh("k"), through=False)])
    assert (nothing.changed, nothing.refused) == (0, {})


async def test_a_refill_takes_the_place_of_a_hash(redis_url: str) -> None:
    async with redis_bench(redis_url) as bench:
        key = fresh("k")
        await bench.client.hset(key, "", V1)
        answer = await bench.cache.apply([Refill(key, through=False)])
        assert await bench.client.get(key) == b"L:" + answer.leased[key].encode()


async def test_leases_of_one_call_differ(cache_bench: CacheBench) -> None:
    keys = [fresh("k") for _ in range(3)]
    answer = await cache_bench.cache.apply([through(key) for key in keys])
    assert len(set(answer.leased.values())) == 3


HASH = hash_payload({"pk": "ü|\n", "n": "1.50"})


def hashed(key: str, version: str = V2, payload: bytes | None = HASH, *, through: bool = False) -> Refresh:
    return Refresh(key, version, payload, HOUR_MS, through, hashed=True)


async def test_an_entry_can_be_a_hash_that_is_compared_and_set_as_a_whole(redis_url: str) -> None:
    async with redis_bench(redis_url) as bench:
        old, newer, string, gone, foreign, absent = (fresh("k") for _ in range(6))
        for key, version in ((old, V1), (newer, V3), (gone, V1)):
            await bench.client.hset(key, mapping={"": version, "left": "x"})
        await bench.client.hset(foreign, "a", "b")
        await bench.client.set(string, f"V:{V1}|{{}}")
        actions = [hashed(key) for key in (old, newer, string, foreign, absent)]
        answer = await bench.cache.apply([*actions, hashed(gone, payload=None)])
        assert (answer.changed, answer.refused) == (4, {})
        assert await bench.client.hgetall(old) == {b"": V2.encode(), b"pk": "ü|\n".encode(), b"n": b"1.50"}
        assert HOUR_MS - 600_000 < await bench.life_ms(old) <= HOUR_MS
        assert await bench.client.hget(newer, "left") == b"x"
        assert await bench.client.exists(string, foreign, absent) == 0
        assert await bench.client.get(gone) == b"T:" + V2.encode()
        heads = await bench.cache.heads([old, newer, gone, absent])
        assert [entry_state(head, V2) for head in heads] == [
            EntryState.CURRENT, EntryState.CURRENT, EntryState.CURRENT, EntryState.NONE,
        ]  # fmt: skip
        assert await bench.cache.get(old) == b"V:" + V2.encode() + b"|" + HASH


async def test_a_hash_that_was_absent_is_filled_under_its_lease(redis_url: str) -> None:
    async with redis_bench(redis_url) as bench:
        key, marked = fresh("k"), fresh("k")
        leased = (await bench.cache.apply([hashed(key, through=True), hashed(marked, through=True)])).leased
        entry = b"V:" + V1.encode() + b"|" + HASH
        assert await bench.cache.fill([CacheFill(key, "another", entry, HOUR_MS, hashed=True)]) == 0
        fills = [
            CacheFill(key, leased[key], entry, HOUR_MS, hashed=True),
            CacheFill(marked, leased[marked], b"T:", 9000, True),
        ]
        assert await bench.cache.fill(fills) == 2
        assert await bench.cache.get(key) == entry
        assert await bench.cache.get(marked) == b"T:"
        assert await bench.cache.fill(fills) == 0


async def test_a_hash_of_very_many_fields_is_stored(redis_url: str) -> None:
    async with redis_bench(redis_url) as bench:
        key = fresh("k")
        await bench.client.hset(key, "", V1)
        assert (
            await bench.cache.apply([hashed(key, payload=hash_payload({str(n): "" for n in range(9000)}))])
        ).changed == 1
        assert await bench.client.hlen(key) == 9001


async def test_changes_are_told_on_channels_and_in_streams(redis_url: str) -> None:
    async with redis_bench(redis_url) as bench:
        name, channel = fresh("s"), fresh("c")
        async with bench.client.pubsub() as listening:
            await listening.subscribe(channel)
            assert (await listening.get_message(timeout=30))["type"] == "subscribe"
            told = [publish(Publication(name, is_stream=True, most=100), str(n), {"deleted": False}) for n in range(3)]
            answer = await bench.cache.apply([*told, publish(Publication(channel), "a", {"deleted": True})])
            assert (answer.changed, answer.refused) == (4, {})
            heard = await listening.get_message(ignore_subscribe_messages=True, timeout=30)
            assert heard["data"] == b'{"key":"a","deleted":true}'
        entries = await bench.client.xrange(name)
        assert [fields for _, fields in entries] == [{b"message": action.message} for action in told]
        await bench.client.set(name, "no stream")
        answer = await bench.cache.apply([*told, publish(Publication(channel), "a", {})])
        assert set(answer.refused) == {action.key for action in told}


async def test_no_action_is_no_change(cache_bench: CacheBench) -> None:
    assert (await cache_bench.cache.apply([])).changed == 0


async def test_many_actions_act_in_their_order(cache_bench: CacheBench) -> None:
    """More keys than fit one round trip, each refreshed twice: the newer one wins, wherever the older one stands."""
    keys = [fresh("k") for _ in range(700)]
    await cache_bench.seed(dict.fromkeys(keys, value_entry(V1, b"{}")))
    actions = [refresh(key, V3, b"3") for key in keys] + [refresh(key, V2, b"2") for key in keys]
    assert (await cache_bench.cache.apply(actions)).changed == 700
    assert set((await cache_bench.found(keys)).values()) == {value_entry(V3, b"3")}


async def test_every_action_on_every_entry_does_what_the_pure_function_says(cache_bench: CacheBench) -> None:
    dice = Random(9)
    entries: dict[str, bytes | None] = {}
    actions: list[CacheAction] = []
    for _ in range(1000):
        key = fresh("k")
        stands, comes = (ordered_version(0, 1, dice.randrange(1, 4)) for _ in range(2))
        entries[key] = dice.choice(
            [None, b"L:t", b"x", value_entry(stands, b"{}"), b"T:" + stands.encode(), b"V:" + b"9" * 55 + b"|"]
        )
        choices: list[CacheAction] = [Invalidate(key), refresh(key, comes), refresh(key, comes, None)]
        actions.append(dice.choice(choices))
    await cache_bench.seed({key: entry for key, entry in entries.items() if entry is not None})
    expected = {action.key: acted(entries[action.key], action) for action in actions}
    changed = (await cache_bench.cache.apply(actions)).changed
    assert await cache_bench.found(list(entries)) == expected
    assert changed == sum(entries[key] != expected[key] for key in entries)


@pytest.mark.servers
async def test_a_value_of_another_redis_type_is_dropped(redis_url: str) -> None:
    async with redis_bench(redis_url) as bench:
        key = fresh("list")
        await bench.client.rpush(key, "a")
        assert (await bench.cache.apply([refresh(key)])).changed == 1
        assert not await bench.client.exists(key)


@pytest.mark.servers
async def test_a_server_that_forgot_its_scripts_is_taught_again(redis_url: str) -> None:
    async with redis_bench(redis_url) as bench:
        keys = [fresh("k"), fresh("k")]
        for key in keys:
            await bench.client.script_flush()
            await bench.seed({key: value_entry(V1, b"{}")})
            assert (await bench.cache.apply([refresh(key)])).changed == 1


async def test_heads_of_entries_are_read_in_the_order_of_their_keys(cache_bench: CacheBench) -> None:
    keys = [fresh("k") for _ in range(300)]
    entries = {key: value_entry(V1, b"x" * number) for number, key in enumerate(keys) if number % 2}
    await cache_bench.seed(entries)
    assert await cache_bench.cache.heads(keys) == [entries.get(key, b"")[:ENTRY_HEAD] for key in keys]


@pytest.mark.servers
async def test_the_head_of_what_is_no_string_is_none_of_ours(redis_url: str) -> None:
    async with redis_bench(redis_url) as bench:
        key = fresh("list")
        await bench.client.rpush(key, "a")
        (head,) = await bench.cache.heads([key])
        assert entry_state(head, V1) is EntryState.OPAQUE
