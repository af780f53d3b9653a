"""What a target is owed of a shard: whatever left the stream in front of it is seen in the first page, or asked for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from replicator.domain.identifiers import RegionId, RuleName, SequenceNumber, ShardId, TableName
from replicator.domain.progress import BEGINNING, END, HORIZON, Position, after
from replicator.domain.shards.leases import LeaseRow, Rewind
from replicator.domain.shards.lineage import RETENTION_SECONDS, Shard
from replicator.domain.shards.owed import (
    Mark,
    Verdict,
    beginning,
    is_overdue,
    is_owed,
    judge,
    may_stand_whole,
    place_of,
)
from replicator.domain.targets import replica_id
from replicator.domain.values import replace

AP = replica_id(RuleName("orders"), RegionId("ap"), TableName("orders"))
FIRST = SequenceNumber("1")


def place(number: int) -> Position:
    return BEGINNING if number == 0 else after(SequenceNumber(str(number)))


def sequence(number: int, last: int) -> SequenceNumber | None:
    """The first record behind a number; None when there is none."""
    return SequenceNumber(str(number + 1)) if number < last else None


@given(
    last=st.integers(0, 6),
    read=st.integers(0, 6),
    trimmed=st.integers(0, 6),
    behind=st.sampled_from([HORIZON, BEGINNING]),
)
def test_no_page_is_taken_for_whole_that_begins_behind_a_record_which_a_target_lacks(
    last: int, read: int, trimmed: int, behind: Position
) -> None:
    read, trimmed = min(read, last), min(trimmed, last)
    if behind == BEGINNING:
        trimmed = 0  # the stream refuses that place else
    verdict = judge(place(read), behind, None, sequence(trimmed, last))
    is_lost = read < trimmed
    assert verdict is not Verdict.LOST
    assert (verdict is Verdict.ASK) or not is_lost
    if read > trimmed or (behind == BEGINNING and read == 0):
        assert verdict is Verdict.WHOLE, "what is plain is not asked for"


@given(last=st.integers(1, 6), shown=st.integers(0, 6), trimmed=st.integers(0, 6), read=st.integers(0, 6))
def test_what_was_shown_first_at_the_horizon_and_is_there_no_more_is_lost(
    last: int, shown: int, trimmed: int, read: int
) -> None:
    """A target at the horizon, or one that was let pass a loss up to there."""
    shown, trimmed = min(shown, last - 1), min(max(shown, trimmed), last)
    for at in (HORIZON, place(min(read, shown))):
        verdict = judge(at, HORIZON, Mark(at, sequence(shown, last)), sequence(trimmed, last))
        assert verdict is (Verdict.LOST if trimmed > shown else Verdict.WHOLE)


def test_a_mark_counts_for_its_own_place_only() -> None:
    mark = Mark(place(3), SequenceNumber("9"))
    assert judge(place(3), HORIZON, mark, SequenceNumber("9")) is Verdict.WHOLE
    assert judge(place(4), HORIZON, mark, SequenceNumber("9")) is Verdict.ASK
    assert judge(place(3), HORIZON, Mark(place(3), None), SequenceNumber("9")) is Verdict.WHOLE


def test_a_target_behind_the_shards_end_lacks_nothing() -> None:
    assert judge(END, HORIZON, None, SequenceNumber("9")) is Verdict.WHOLE
    assert judge(END, HORIZON, None, None) is Verdict.WHOLE


def test_a_target_that_stands_at_the_horizon_for_the_first_time_takes_what_is_there() -> None:
    assert judge(HORIZON, HORIZON, None, SequenceNumber("9")) is Verdict.WHOLE
    assert judge(HORIZON, HORIZON, None, None) is Verdict.WHOLE


def test_a_target_had_what_it_read_before_it_was_rewound() -> None:
    rewind = Rewind(before=0.0, until=place(5))
    assert place_of(HORIZON, None) == HORIZON
    assert place_of(HORIZON, rewind) == place(5)
    assert place_of(place(2), rewind) == place(5)
    assert place_of(place(7), rewind) == place(7)


def test_a_shard_that_came_behind_a_targets_start_is_owed_from_its_first_record() -> None:
    row = LeaseRow(Shard(ShardId("s"), first=FIRST), found_at=1000.0)
    assert is_owed(row, AP, 900.0)
    assert not is_owed(row, AP, 940.0)
    assert beginning(row, AP, 900.0, whole=False) == BEGINNING
    assert beginning(row, AP, 940.0, whole=False) == HORIZON
    assert beginning(row, AP, 940.0, whole=True) == BEGINNING
    assert not may_stand_whole(row, AP, 900.0)
    assert may_stand_whole(row, AP, 940.0)


def test_a_rewound_target_and_a_shard_without_a_first_record_begin_at_the_horizon() -> None:
    rewound = LeaseRow(
        Shard(ShardId("s"), first=FIRST), found_at=1000.0, rewinds={AP: Rewind(before=0.0, until=place(5))}
    )
    unknown = LeaseRow(Shard(ShardId("s")), found_at=1000.0)
    for row in (rewound, unknown):
        assert beginning(row, AP, 0.0, whole=True) == HORIZON
        assert not may_stand_whole(row, AP, 1000.0)


def test_a_day_at_the_horizon_may_have_cost_what_stood_there() -> None:
    row = LeaseRow(Shard(ShardId("s"), first=FIRST), found_at=1000.0)
    assert not is_overdue(row, AP, 990.0, 990.0 + RETENTION_SECONDS)
    assert is_overdue(row, AP, 990.0, 991.0 + RETENTION_SECONDS)
    assert not is_overdue(row, AP, 990.0, 991.0 + RETENTION_SECONDS, kept=2 * RETENTION_SECONDS)
    assert not is_overdue(row, AP, 0.0, 1000.0 + RETENTION_SECONDS), "an owed shard counts from when it was found"
    assert not is_overdue(LeaseRow(Shard(ShardId("s"))), AP, 0.0, 1e9)
    handed_over = replace(row, rewinds={AP: Rewind(5000.0, HORIZON)})
    assert not is_overdue(handed_over, AP, 990.0, 5000.0 + RETENTION_SECONDS), "what was gone by then is excused"
    assert is_overdue(handed_over, AP, 990.0, 5001.0 + RETENTION_SECONDS)
    rewound = replace(row, rewinds={AP: Rewind(5000.0, place(7))})
    assert is_overdue(rewound, AP, 990.0, 991.0 + RETENTION_SECONDS), "it reads again what it had read"
