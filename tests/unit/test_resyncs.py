"""Repairs that follow losses: which are asked for, and which losses they close."""

from __future__ import annotations

import pytest

from replicator.domain.copying.contents import Kind
from replicator.domain.copying.resyncs import Resync, plan, resyncs
from replicator.domain.gaps import Gap, OpenGap
from replicator.domain.identifiers import RegionId, RuleName, ShardId, TableName
from replicator.domain.jobs import Job, JobKind, JobState
from replicator.domain.modes.versioned.ranks import VersionAttribute
from replicator.domain.progress import END, HORIZON
from replicator.domain.rules import OnGap, Rule, Target, VersionedPlan
from replicator.domain.shards.leases import StreamRef
from replicator.domain.values import replace

US, EU = RegionId("us"), RegionId("eu")
ORDERS = TableName("orders")
NAME = RuleName("orders")
TARGET = Target(NAME, EU, ORDERS)
RULE = Rule(NAME, US, ORDERS, (TARGET,), on_gap=OnGap.RESYNC)
STREAM = StreamRef(US, ORDERS, "arn", 1)
FOUND, NOW = 1000.0, 1007.0


def gap(shard: str = "s1", at: float = FOUND, target: Target = TARGET, job: str | None = None) -> OpenGap:
    return OpenGap(Gap(STREAM, ShardId(shard), target.target_id, HORIZON, END, FOUND, "it is gone"), at, job)


def asked(at: float = NOW) -> Job:
    (job,) = plan([gap()], [], [RULE], at).create
    return job


def test_a_loss_asks_for_a_repair_of_source_and_replica() -> None:
    job = asked()
    assert (job.kind, job.rule, job.table, job.targets) == (JobKind.RESYNC, NAME, ORDERS, (TARGET.target_id,))
    assert [part.name for part in job.parts] == ["us:orders", "eu:orders"]
    assert job.created_at == NOW


def test_losses_of_one_target_ask_for_one_repair_and_every_worker_for_the_same() -> None:
    (job,) = plan([gap("s1"), gap("s2"), gap("s3")], [], [RULE], NOW).create
    assert job == asked()
    assert asked(NOW + 0.9).job_id == job.job_id


def test_a_repair_never_seems_to_begin_before_the_loss_was_known() -> None:
    (job,) = plan([gap(at=NOW + 30)], [], [RULE], NOW).create
    assert job.created_at == NOW + 30


def test_a_repair_under_way_is_noted_once() -> None:
    job = asked()
    assert plan([gap()], [job], [RULE], NOW) == Resync((), ((gap().gap, job.job_id),), ())
    assert plan([gap(job=job.job_id)], [job], [RULE], NOW) == Resync()


@pytest.mark.parametrize("kind", [JobKind.RESYNC, JobKind.REPAIR])
def test_a_repair_that_is_done_closes_what_was_known_when_it_began(kind: JobKind) -> None:
    job = replace(asked(), kind=kind, state=JobState.DONE)
    later = gap("s2", at=NOW + 1)
    planned = plan([gap(), later], [job], [RULE], NOW + 2)
    assert planned.close == ((gap().gap, job.job_id),)
    assert [other.created_at for other in planned.create] == [NOW + 2], "what was lost later needs another one"


@pytest.mark.parametrize("kind", [Kind.MISSING, Kind.DIFFERS, Kind.UNSTAMPED])
def test_a_repair_that_left_differences_closes_no_loss_and_is_not_asked_for_again(kind: Kind) -> None:
    job = replace(asked(), state=JobState.DONE, counts={"mended": 9, Kind.EXTRA: 1, kind: 1})
    assert plan([gap(job=job.job_id)], [job], [RULE], NOW + 2) == Resync()
    again = replace(job, kind=JobKind.REPAIR, job_id="again", counts={"mended": 1, Kind.EXTRA: 1})
    assert plan([gap(job=job.job_id)], [job, again], [RULE], NOW + 2).close == ((gap().gap, "again"),)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": JobKind.VERIFY},
        {"options": {"prefix": "a"}, "kind": JobKind.REPAIR},
        {"options": {"keys": [{}]}, "kind": JobKind.REPAIR},
        {"options": {"dry_run": True}, "kind": JobKind.REPAIR},
        {"targets": (Target(NAME, EU, TableName("other")).target_id,)},
        {"created_at": FOUND - 1},
    ],
)
def test_no_other_job_closes_a_loss(change: dict[str, object]) -> None:
    job = replace(asked(), state=JobState.DONE, **change)  # type: ignore[arg-type]
    planned = plan([gap()], [job], [RULE], NOW)
    assert not planned.close
    assert len(planned.create) == 1


@pytest.mark.parametrize("state", [JobState.CANCELLED, JobState.FAILED])
def test_a_repair_that_was_given_up_is_not_asked_for_again(state: JobState) -> None:
    assert plan([gap()], [replace(asked(), state=state)], [RULE], NOW) == Resync()


@pytest.mark.parametrize("on_gap", [OnGap.STOP, OnGap.SKIP])
def test_nothing_follows_where_the_rule_does_not_ask_for_it(on_gap: OnGap) -> None:
    assert plan([gap()], [], [replace(RULE, on_gap=on_gap)], NOW) == Resync()
    assert plan([gap()], [], [], NOW) == Resync(), "and where the rule does not run"


def test_caches_alone_are_not_repaired() -> None:
    caches = Target(NAME, US, None)
    rule = replace(RULE, targets=(TARGET, caches))
    assert not resyncs(rule, caches)
    assert plan([gap(target=caches)], [], [rule], NOW) == Resync()


def test_a_mesh_is_repaired_as_a_whole() -> None:
    mesh = VersionedPlan((EU,), VersionAttribute("ver"))
    rule = Rule(NAME, US, ORDERS, (Target(NAME, US, ORDERS),), mesh=mesh, on_gap=OnGap.RESYNC)
    (job,) = plan([gap(target=rule.targets[0])], [], [rule], NOW).create
    assert [part.name for part in job.parts] == ["eu:orders", "us:orders"]
