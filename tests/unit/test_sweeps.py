"""Comparisons that come again and again: when the next one is due, and what the last one says."""

from __future__ import annotations

import pytest

from replicator.domain.copying.sureness import nines
from replicator.domain.copying.sweeps import due, is_last, passes
from replicator.domain.identifiers import RegionId, RuleName, TableName
from replicator.domain.jobs import Job, JobKind, JobState
from replicator.domain.modes.versioned.ranks import VersionAttribute
from replicator.domain.rules import Rule, Sweep, Target, VersionedPlan
from replicator.domain.values import replace

US, EU, ORDERS, NAME = RegionId("us"), RegionId("eu"), TableName("orders"), RuleName("orders")
WEEK = 7 * 86_400.0
RULE = Rule(NAME, US, ORDERS, (Target(NAME, EU, ORDERS), Target(NAME, US, None)), sweep=Sweep(WEEK, 50))
NOW = 1_000_000.0


def first() -> Job:
    (job,) = due([RULE], [], NOW)
    return job


def test_a_rule_that_was_never_compared_is_compared_at_once_within_its_units() -> None:
    job = first()
    assert (job.kind, job.rule, job.table) == (JobKind.SWEEP, NAME, ORDERS)
    assert [part.name for part in job.parts] == ["us:orders", "eu:orders"]
    assert job.targets == (RULE.targets[0].target_id,), "caches alone are no table"
    assert job.options == {"read_units": {"us": 50, "eu": 50}}


def test_workers_that_ask_together_ask_for_the_same() -> None:
    (other,) = due([RULE], [], NOW + 3)
    assert other.job_id == first().job_id


@pytest.mark.parametrize("state", [JobState.DONE, JobState.FAILED, JobState.CANCELLED])
def test_the_next_one_begins_when_its_time_has_come_and_the_last_one_is_over(state: JobState) -> None:
    over = replace(first(), state=state)
    assert due([RULE], [over], NOW + WEEK - 1) == []
    (job,) = due([RULE], [over], NOW + WEEK)
    assert job.job_id != over.job_id
    assert due([RULE], [first()], NOW + 3 * WEEK) == [], "it is still at work"


def test_a_mesh_is_compared_once_and_not_once_per_region() -> None:
    def home(region: RegionId, other: RegionId) -> Rule:
        mesh = VersionedPlan((other,), VersionAttribute("ver"))
        return Rule(
            NAME, region, ORDERS, (Target(NAME, region, ORDERS),), mesh=mesh, sweep=Sweep(WEEK, 50, repair=True)
        )

    (job,) = due([home(US, EU), home(EU, US)], [], NOW)
    assert [part.name for part in job.parts] == ["eu:orders", "us:orders"]
    assert job.options["repair"] is True
    assert due([home(US, EU), home(EU, US)], [job], NOW + 1) == []


def test_a_rule_that_does_not_ask_for_it_is_not_compared() -> None:
    caches = replace(RULE, targets=(Target(NAME, US, None),))
    assert due([replace(RULE, sweep=None), caches], [], NOW) == []


def test_the_last_full_pass_counts() -> None:
    one = replace(first(), state=JobState.DONE)
    two = replace(one, job_id="two", created_at=NOW + WEEK)
    half = replace(one, job_id="three", created_at=NOW + 2 * WEEK, state=JobState.CANCELLED)
    assert passes([two, one, half]) == [two]
    assert [is_last(job, [one, two, half]) for job in (one, two, half)] == [False, False, True]
    assert not is_last(replace(one, kind=JobKind.VERIFY), [])


def test_nines_are_of_the_share_that_differs() -> None:
    assert nines(1000, 1) == 3.0
    assert nines(1000, 0) == 3.0, "no more can be claimed of so few"
    assert nines(1000, 500) == 0.3
    assert nines(0, 0) is None
