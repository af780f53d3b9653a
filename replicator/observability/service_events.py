"""Events of what a worker does beside its shards: sessions, listings, pauses, looks at what is held."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from replicator.domain.driving import DRIVEN
from replicator.domain.errors import ReplicatorError, Unreachable
from replicator.domain.held import Hold
from replicator.domain.identifiers import RuleName, WorkerId
from replicator.domain.jobs import Job, JobProgress
from replicator.domain.shards.leases import StreamRef
from replicator.observability import log_fields
from replicator.observability.readiness import unready
from replicator.observability.reports import Reports
from replicator.observability.target_states import Trouble
from replicator.ports.events import Overview
from replicator.ports.services import OF_A_STREAM, ServiceId, ServiceKind, stream_service


class ServiceEvents(Reports):
    """What happens to services."""

    def session_began(self, worker: WorkerId) -> None:
        """This process lives under a new worker id."""
        former, self._board.worker = self._board.worker, worker
        if former is None:
            self._log.info("session_began", worker=worker)
        else:
            reason = "The lease time passed without a heartbeat: shards are claimed again under another worker id."
            self._log.info("session_began", worker=worker, former=former, reason=reason)

    def kept(self, stream: StreamRef, seconds: float) -> None:
        """A stream keeps records for so long."""
        self._board.kept[stream] = seconds

    def cycle(
        self,
        stream: StreamRef | None,
        shards: int,
        owned: int,  # noqa: ARG002 - counted from the leases that are held: a lost one is none
        open_shards: int | None = None,
    ) -> None:
        """A cycle over a stream's shards was attempted."""
        self._board.attempted(stream, shards)
        self.summarise()
        self._ready()
        if stream is not None:
            self._metrics.shards.labels(stream.table, stream.region).set(shards)
            if open_shards is not None:
                self._metrics.open_shards.labels(stream.table, stream.region).set(open_shards)

    def _ready(self) -> None:
        """Say once what runs, as soon as nothing keeps this worker from its work."""
        board = self._board
        if self._began_at is None or unready(board):
            return
        seconds, self._began_at = self._clock.monotonic() - self._began_at, None
        held = sorted({row.held.rule for row in board.held_rows() if row.held.target is None})
        running = [rule for rule in board.rules if rule.name not in held]
        self._log.info(
            "ready",
            rules=sorted({rule.name for rule in running}),
            targets=len({target.target_id for rule in running for target in rule.targets}),
            **({"held": held} if held else {}),
            **({"paused": sorted(board.paused)} if board.paused else {}),
            seconds=round(seconds, 1),
        )

    def described(self, stream: StreamRef) -> None:
        """A DescribeStream call was made."""
        self._metrics.describes.labels(stream.table, stream.region).inc()

    def paused(self, rules: Mapping[RuleName, float], driven: Collection[RuleName] = ()) -> None:
        """These rules are paused now, and no others; what changed is logged."""
        before, self._board.paused = self._board.paused, dict(rules)
        for rule in sorted(self._board.paused.keys() - before):
            if rule in driven:
                self._log.info("rule_paused", rule=rule, reason=DRIVEN.format(rule))
            else:
                self._log.info("rule_paused", rule=rule)
        for rule in sorted(before.keys() - self._board.paused):
            self._log.info("rule_resumed", rule=rule)

    def held(self, holds: Sequence[Hold]) -> None:
        """These are held now, and nothing else; what changed is logged."""
        before = {each.hold.held: each for each in self._board.held}
        self._board.holds(holds)
        for hold in holds:
            known = before.pop(hold.held, None)
            if known is None or known.hold.error.message != hold.error.message:
                error, fields = hold.error, log_fields.of_held(hold.held)
                self._log.warning(
                    "rule_held", cause=hold.cause, reason=error.message, advice=error.worker_advice, **fields
                )
        for each in before.values():
            seconds = round(self._clock.monotonic() - each.since, 1)
            self._log.info("rule_released", held_seconds=seconds, **log_fields.of_held(each.hold.held))

    def sweeps(self, passes: Sequence[Job]) -> None:
        """The last full comparisons of rules that are compared again and again."""
        self._board.sweeps = tuple(passes)

    def jobs(self, seen: Sequence[JobProgress]) -> None:
        """How far the jobs are that are not over."""
        before = self._board.jobs
        self._board.jobs = {progress.job.job_id: progress for progress in seen}
        for job_id in self._board.jobs.keys() - before:
            self._log.info("job_seen", **log_fields.of_job(self._board.jobs[job_id]))

    def job_ended(self, progress: JobProgress) -> None:
        """A job is over."""
        self._metrics.jobs.ended.labels(progress.job.kind, progress.job.state).inc()
        self._log.info("job_ended", reason=progress.job.note, **log_fields.of_job(progress))

    def service_failed(self, service: ServiceId, error: ReplicatorError) -> None:
        """A background service failed and will be repeated."""
        self._metrics.failures.labels(type(error).__name__).inc()
        self._board.attempted(None, 0)
        trouble = self._board.services.get(service)
        if trouble is None:
            self._board.services[service] = Trouble(error, None, self._clock.monotonic())
        else:
            trouble.error = error
            trouble.times += 1
        self._warn(service, "service_failed", error, **log_fields.of_service(service))

    def service_hangs(self, service: ServiceId, seconds: float) -> None:
        """A background service waits for an answer. That is no attempt, so the health check may restart the process."""
        error = Unreachable(f"It has waited {seconds:.0f} s for an answer.")
        self._board.services.setdefault(service, Trouble(error, None, self._clock.monotonic())).error = error
        self._warn(service, "service_hangs", error, **log_fields.of_service(service))

    def overview(self, overview: Overview | None) -> None:
        """What no worker reads, as this worker looks after for all; None: another one does."""
        if (overview is None) != (self._board.overview is None):
            self._log.info("overview_given_up" if overview is None else "overview_taken")
        self._board.overseen(overview)

    def stream_left(self, stream: StreamRef) -> None:
        """This session looks at a stream no more; nothing is said to be over that may not be."""
        for service in [stream_service(kind, stream) for kind in OF_A_STREAM]:
            self._board.services.pop(service, None)
            self._reminders.over(service)
        for waiting in self._board.stands(stream, ()):
            self._reminders.over((stream, waiting.standstill.rule, waiting.standstill.why))

    def service_recovered(self, service: ServiceId) -> None:
        """The service works again."""
        if service.kind is ServiceKind.HEARTBEAT:
            self._board.beat_at = self._clock.monotonic()
        if self._board.services.pop(service, None) is not None:
            self._reminders.over(service)
            self._log.info("service_recovered", **log_fields.of_service(service))
