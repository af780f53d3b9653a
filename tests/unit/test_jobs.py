"""Jobs as values: how tables are cut, who claims what, and how far a job is."""

from __future__ import annotations

import pytest

from replicator.domain.copying.exports import ExportUnusable, parse_export, parse_line
from replicator.domain.errors import MalformedRecord
from replicator.domain.identifiers import RuleName, TableName, WorkerId
from replicator.domain.jobs import (
    MOST_SEGMENTS,
    SEGMENT_BYTES,
    Job,
    JobKind,
    JobState,
    Part,
    Segment,
    all_segments,
    progress_of,
    runnable,
    segments_for,
    share_of,
    to_claim,
)
from replicator.domain.values import replace

ME, YOU, DEAD = WorkerId("me"), WorkerId("you"), WorkerId("dead")
JOB = Job("a", JobKind.VERIFY, RuleName("r"), TableName("t"), (), (Part("us:t", 4),), items=100)


def test_a_table_is_cut_by_its_size_and_into_some_for_every_worker() -> None:
    assert segments_for(0, 1) == 4
    assert segments_for(0, 0) == 1
    assert segments_for(10 * SEGMENT_BYTES + 1, 2) == 11
    assert segments_for(10**18, 1) == MOST_SEGMENTS


def test_a_worker_claims_its_share_of_what_is_free_or_was_a_dead_workers() -> None:
    first, second, third, fourth = all_segments(JOB, ())
    left = [replace(first, done=True), replace(second, owner=DEAD), third, replace(fourth, owner=YOU)]
    claimed = to_claim(left, ME, (), live={ME, YOU}, expired={DEAD}, most=8)
    assert len(claimed) == 2
    assert {segment.index for segment in claimed} == {1, 2}
    assert to_claim(left, ME, (), live={ME, YOU}, expired={DEAD}, most=1) == claimed[:1]


def test_a_segment_of_ours_that_does_not_run_is_claimed_again() -> None:
    ours = replace(all_segments(JOB, ())[0], owner=ME)
    assert to_claim([ours], ME, (), live={ME}, expired=(), most=8) == [ours]
    assert to_claim([ours], ME, {ours.name}, live={ME}, expired=(), most=8) == []


def test_units_are_shared_by_the_segments_that_are_held() -> None:
    first, second, third, _ = all_segments(JOB, ())
    held = [replace(first, owner=ME), replace(second, owner=YOU), replace(third, owner=YOU, done=True)]
    assert share_of(held, ME) == 0.5
    assert share_of([first], ME) == 0.0


def test_a_sweep_waits_for_nothing_but_a_job_on_its_targets() -> None:
    sweep = replace(JOB, kind=JobKind.SWEEP, job_id="s")
    assert runnable([sweep, replace(JOB, state=JobState.PAUSED)]) == [sweep]


def test_a_job_that_is_over_has_the_counts_of_its_row() -> None:
    over = replace(JOB, state=JobState.DONE, counts={"items": 90})
    seen = progress_of(over, (), 10.0)
    assert (seen.items, seen.total, seen.done, seen.rate) == (90, 90, 4, None)


def test_a_rate_follows_what_was_seen_and_an_estimate_is_corrected() -> None:
    segment = Segment("a", "us:t", 0, 4, counts={"items": 50})
    before = progress_of(JOB, [segment], 0.0)
    after = progress_of(JOB, [replace(segment, counts={"items": 120})], 7.0, before)
    assert (after.rate, after.total, after.eta_seconds) == (10.0, 120, 0.0)
    still = progress_of(JOB, [replace(segment, counts={"items": 120})], 14.0, after)
    assert still.rate is not None
    assert 0 < still.rate < 10
    assert progress_of(JOB, [segment], 0.0, after).rate is None, "time has not passed"
    assert progress_of(JOB, [segment], 7.0, before).eta_seconds is None, "nothing was done"


def test_manifests_that_are_none_and_exports_of_another_kind_are_refused() -> None:
    with pytest.raises(ExportUnusable, match="cannot be read"):
        parse_export(b"[]", b"", "a/")
    summary = b'{"tableArn":"arn:t/orders","exportTime":"2026-01-01T00:00:00Z","exportType":"INCREMENTAL_EXPORT"}'
    with pytest.raises(ExportUnusable, match="INCREMENTAL"):
        parse_export(summary, b"", "a/")


@pytest.mark.parametrize("line", [b"{}", b'{"Item":1}', b"nothing"])
def test_a_line_without_an_item_is_refused(line: bytes) -> None:
    with pytest.raises(MalformedRecord):
        parse_line(line)
