from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.domain.identifiers import ShardId, WorkerId
from replicator.domain.shards.assignment import Bounds, Doubts, Free, Load, Plan, plan
from replicator.domain.shards.leases import LeaseRow
from replicator.domain.shards.lineage import Shard

A, B, C, D = (WorkerId(name) for name in "abcd")
BOUNDS = Bounds()
NOBODY: Mapping[WorkerId, int] = {}


def shards(count: int, prefix: str = "s") -> list[ShardId]:
    return [ShardId(f"{prefix}{number:03}") for number in range(count)]


def planned(
    *free: Free | ShardId,
    owned: int = 0,
    total: int | None = None,
    held: Mapping[WorkerId, int] = NOBODY,
    mine: int | None = None,
    me: WorkerId = A,
    live: str = "a",
    bounds: Bounds = BOUNDS,
    doubted: str = "",
) -> Plan:
    """A plan with shards by number; the total is what is held or free, unless said."""
    offered = [shard if isinstance(shard, Free) else Free(shard) for shard in free]
    load = Load(sum(held.values()) + len(offered) if total is None else total, held, mine)
    return plan(
        offered,
        shards(owned, "own"),
        load,
        me=me,
        live=[WorkerId(name) for name in live],
        bounds=bounds,
        doubted=[WorkerId(name) for name in doubted],
    )


def test_a_row_names_its_shard() -> None:
    assert LeaseRow(Shard(ShardId("s"))).shard_id == "s"


# -- claims --------------------------------------------------------------------------------------------------------


def test_a_lonely_worker_claims_everything() -> None:
    assert set(planned(*shards(5)).claims) == set(shards(5))
    assert set(planned(*shards(5), live="").claims) == set(shards(5)), "we live, whatever the members say"


def test_claims_are_bounded_and_the_plan_says_that_there_is_more() -> None:
    result = planned(*shards(100))
    assert len(result.claims) == 64
    assert result.more
    assert not planned(*shards(64)).more


@pytest.mark.parametrize(("count", "workers"), [(9, "abc"), (10, "abc"), (2, "abcd"), (300, "abcd"), (1, "abcd")])
def test_workers_with_the_same_view_divide_free_shards_evenly_and_never_race(count: int, workers: str) -> None:
    bounds = Bounds(claims=1000)
    plans = [planned(*shards(count), me=WorkerId(name), live=workers, bounds=bounds) for name in workers]
    claimed = Counter(shard_id for result in plans for shard_id in result.claims)
    assert claimed == Counter(shards(count))
    sizes = [len(result.claims) for result in plans]
    assert max(sizes) - min(sizes) <= 1


def test_free_shards_go_to_those_who_have_less() -> None:
    held = {A: 5, B: 1}
    assert planned(*shards(4), held=held, me=A, live="ab", owned=5).claims == ()
    assert set(planned(*shards(4), held=held, me=B, live="ab").claims) == set(shards(4))


def test_a_worker_claims_no_more_than_its_share_however_many_streams_offer() -> None:
    held = {A: 0, B: 0}
    for mine, expected in ((49, 1), (50, 0)):
        claims = [planned(s, total=100, held=held, mine=mine, me=A, live="ab").claims for s in shards(50)]
        assert max(map(len, claims)) == expected


def test_streams_of_one_shard_each_are_divided_by_drawing() -> None:
    held = {A: 0, B: 30}
    winners = Counter[WorkerId]()
    for shard_id in shards(100):
        for me in (A, B):
            claims = planned(shard_id, total=130, held=held, me=me, live="ab").claims
            winners[me] += len(claims)
    assert winners[A] + winners[B] == 100, "each shard has one taker"
    assert winners[A] > winners[B] > 10, "by how much room they have: 65 to 35"


def test_shards_of_dead_workers_count_as_free_and_not_as_held() -> None:
    result = planned(*shards(6), total=12, held={A: 6, D: 6}, owned=6, live="a")
    assert set(result.claims) == set(shards(6))


def test_a_total_that_is_older_than_what_is_held_harms_nothing() -> None:
    assert planned(total=0, held={A: 3, B: 3}, owned=3, live="ab") == Plan((), ())
    plans = [planned(*shards(2), total=2, held={A: 1, B: 1}, me=me, live="ab") for me in (A, B)]
    assert sorted(len(result.claims) for result in plans) == [1, 1]


# -- children ------------------------------------------------------------------------------------------------------


def test_children_of_our_own_shards_come_first_and_whatever_our_share() -> None:
    free = [*(Free(s) for s in shards(4)), Free(ShardId("child"), ours=True)]
    assert planned(*free).claims[0] == "child"
    assert planned(Free(ShardId("child"), ours=True), held={A: 9, B: 0}, owned=9, live="ab").claims == ("child",)


def test_new_children_are_left_to_whoever_read_their_parents_for_a_moment() -> None:
    assert planned(Free(ShardId("child"), theirs=True, waiting_seconds=1.9)).claims == ()
    assert planned(Free(ShardId("child"), theirs=True, waiting_seconds=2.0)).claims == ("child",)


def test_awaited_children_keep_the_shares_as_they_are() -> None:
    rolling = {A: 4, B: 0, C: 1}
    assert planned(total=12, held=rolling, owned=4, live="abc").releases == ()
    assert planned(total=5, held=rolling, owned=4, live="abc").releases != ()


# -- patience ------------------------------------------------------------------------------------------------------


def helpers(waiting_seconds: float, workers: str = "abcdefghijklmnop") -> int:
    """How many of the workers, each above its share, try for a shard."""
    held = {WorkerId(name): 4 for name in workers} | {WorkerId("z"): 0}
    free = Free(ShardId("s"), waiting_seconds=waiting_seconds)
    return sum(
        "s" in planned(free, held=held, me=WorkerId(name), live=workers + "z", owned=4).claims for name in workers
    )


def test_what_waits_too_long_is_claimed_whatever_the_share_by_ever_more_workers() -> None:
    assert helpers(4.9) == 0
    assert 1 <= helpers(5.0) <= 2
    assert 3 <= helpers(10.0) <= 4
    assert 7 <= helpers(15.0) <= 8
    assert helpers(1e9) == 16


def test_a_shard_is_claimed_once_even_if_it_is_ours_twice() -> None:
    assert planned(Free(ShardId("s"), waiting_seconds=99)).claims == ("s",)


def test_who_let_a_shard_wait_is_named_with_what_it_holds() -> None:
    late = Free(ShardId("s"), waiting_seconds=5.0)
    assert planned(late, held={A: 4, B: 2}, owned=4, live="ab").passed_over == {B: 2}
    assert planned(late, held={A: 2, B: 4}, owned=2, live="ab").passed_over == {}, "we ourselves"
    assert planned(Free(ShardId("s")), held={A: 4, B: 2}, owned=4, live="ab").passed_over == {}


# -- hand-overs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        ((5, 5), (0, 0)),
        ((6, 5), (0, 0)),
        ((7, 5), (1, 0)),
        ((4, 4, 2), (0, 1, 0)),
        ((4, 4, 3), (0, 0, 0)),
        ((6, 6, 0), (2, 2, 0)),
        ((40, 0), (8, 0)),
        ((1, 0), (0, 0)),
        ((2, 0, 0), (1, 0, 0)),
    ],
)
def test_only_what_is_above_the_share_is_handed_over(held: tuple[int, ...], expected: tuple[int, ...]) -> None:
    loads = dict(zip((A, B, C), held, strict=False))
    live = "abc"[: len(held)]
    releases = tuple(
        len(planned(held=loads, owned=count, me=worker, live=live).releases) for worker, count in loads.items()
    )
    assert releases == expected


def test_a_worker_hands_over_what_it_owns_of_this_stream_only() -> None:
    assert len(planned(held={A: 40, B: 0}, owned=3, live="ab").releases) == 3
    assert planned(held={A: 40, B: 0}, owned=0, live="ab").releases == ()


def test_nothing_is_handed_over_while_enough_is_free() -> None:
    held = {A: 60, B: 0}
    assert len(planned(*shards(5), held=held, owned=60, live="ab").releases) == 3
    assert planned(*shards(9), held=held, owned=60, live="ab").releases == ()


def test_what_is_being_handed_over_is_not_handed_over_again() -> None:
    held = {A: 10, B: 0}
    assert len(planned(held=held, mine=10, owned=10, live="ab").releases) == 5
    assert len(planned(held=held, mine=7, owned=7, live="ab").releases) == 2
    assert planned(held=held, mine=5, owned=5, live="ab").releases == ()


def test_who_hands_over_does_not_want_it_back() -> None:
    released = planned(held={A: 10, B: 0}, owned=10, live="ab").releases
    back = planned(*released, total=10, held={A: 5, B: 0}, owned=5, live="ab")
    assert back == Plan((), ())


# -- doubts --------------------------------------------------------------------------------------------------------


def test_a_doubted_worker_keeps_what_it_holds_and_gets_nothing() -> None:
    held = {A: 5, B: 5, C: 1}
    assert planned(held=held, owned=5, live="abc").releases != ()
    assert planned(held=held, owned=5, live="abc", doubted="c") == Plan((), ())
    assert planned(*shards(2), held=held, owned=5, live="abc", doubted="bc").claims == tuple(shards(2))
    assert planned(*shards(2), live="a", doubted="a").claims == tuple(shards(2)), "no worker doubts itself"


def test_a_worker_that_was_passed_over_twice_and_took_nothing_is_doubted_for_a_while() -> None:
    doubts = Doubts()
    doubts.note({B: 3}, 100.0)
    doubts.note({B: 3}, 104.9)
    assert doubts.at(104.9) == frozenset()
    doubts.note({B: 2}, 106.0)
    assert doubts.at(106.0) == {B}
    assert doubts.at(165.9) == {B}
    assert doubts.at(166.0) == frozenset()


def test_a_worker_that_takes_something_meanwhile_is_not_doubted() -> None:
    doubts = Doubts()
    doubts.note({B: 3}, 100.0)
    doubts.note({B: 4}, 106.0)
    assert doubts.at(106.0) == frozenset()
    doubts.note({B: 4}, 111.0)
    assert doubts.at(111.0) == {B}


def test_an_old_suspicion_is_forgotten() -> None:
    doubts = Doubts()
    doubts.note({B: 3}, 100.0)
    doubts.note({B: 3}, 160.0)
    assert doubts.at(160.0) == frozenset()


def test_a_doubt_that_proves_right_again_lasts_twice_as_long_up_to_an_hour() -> None:
    doubts = Doubts()
    doubts.note({B: 0}, 0.0)
    now, lengths = 5.0, []
    for _ in range(8):
        doubts.note({B: 0}, now)
        doubts.note({B: 0}, now + 1)
        begin = now
        while doubts.at(now):
            now += 5
        lengths.append(now - begin)
    assert lengths == [60, 120, 240, 480, 960, 1920, 3600, 3600]


def test_a_doubt_that_proves_wrong_is_forgotten_after_as_long_again() -> None:
    doubts = Doubts()
    doubts.note({B: 0}, 0.0)
    doubts.note({B: 0}, 5.0)
    doubts.note({}, 126.0)
    doubts.note({B: 0}, 127.0)
    assert doubts.at(127.0) == frozenset()


# -- any situation -------------------------------------------------------------------------------------------------


@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=6),
    st.integers(0, 40),
    st.integers(0, 10),
    st.integers(1, 9),
)
def test_plans_of_one_view_fill_up_to_the_share_and_leave_loads_closer(
    held: list[int], free: int, awaited: int, moves: int
) -> None:
    names = "abcdef"[: len(held)]
    loads = {WorkerId(name): count for name, count in zip(names, held, strict=True)}
    total = sum(held) + free + awaited
    after, claimed = dict(loads), Counter[ShardId]()
    for worker, count in loads.items():
        result = planned(
            *shards(free),
            total=total,
            held=loads,
            owned=count,
            me=worker,
            live=names,
            bounds=Bounds(moves=moves),
        )
        claimed.update(result.claims)
        assert len(result.releases) <= moves
        assert not (result.claims and result.releases)
        after[worker] += len(result.claims) - len(result.releases)
        share = total // len(held)
        if result.releases:
            assert after[worker] >= share
        if result.claims:
            assert after[worker] <= share + 1
    assert claimed == Counter(shards(free)), "every free shard has one taker"


@given(st.lists(st.integers(0, 40), min_size=2, max_size=6), st.integers(1, 9))
def test_repeated_plans_come_to_rest_within_one_and_move_no_more_than_they_must(held: list[int], moves: int) -> None:
    names = [WorkerId(name) for name in "abcdef"[: len(held)]]
    numbered = iter(range(1000))
    owned = {
        name: {ShardId(f"s{next(numbered):03}") for _ in range(count)} for name, count in zip(names, held, strict=True)
    }
    free: set[ShardId] = set()
    total, moved = sum(held), 0
    for _ in range(2 * total + 4):
        loads = Load(total, {name: len(mine) for name, mine in owned.items()})
        plans = {
            name: plan(
                [Free(shard_id) for shard_id in sorted(free)],
                mine,
                loads,
                me=name,
                live=names,
                bounds=Bounds(moves=moves),
            )
            for name, mine in owned.items()
        }
        if not any(result.claims or result.releases for result in plans.values()):
            break
        for name, result in plans.items():
            moved += len(result.releases)
            owned[name] = (owned[name] | set(result.claims)) - set(result.releases)
            free = (free - set(result.claims)) | set(result.releases)
    sizes = sorted(map(len, owned.values()))
    assert not free
    assert sum(sizes) == total
    assert sizes[-1] - sizes[0] <= 1
    share, over = divmod(total, len(held))
    least = sum(max(0, count - share - (place < over)) for place, count in enumerate(sorted(held, reverse=True)))
    assert moved == least
