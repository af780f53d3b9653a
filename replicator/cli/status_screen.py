"""What `status` shows of a group: lines of problems, notes, and the rows of its table."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from replicator.cli.following import shown_span
from replicator.cli.output import as_typed, width, wrapped
from replicator.domain.plain_text import on_one_line
from replicator.domain.progress import END
from replicator.domain.shards.unread import LOST
from replicator.domain.verdict.figures import place_of
from replicator.domain.verdict.kinds import Problem, counted, span
from replicator.operations.group_status import FINISHED, GroupStatus, RuleStatus, ShardStatus, TargetStatus

if TYPE_CHECKING:
    from replicator.operations.away_status import RegionStatus
    from replicator.operations.jobs import ListedJob
    from replicator.operations.pacing_status import PacingStatus

COLUMNS = (
    "rule", "target", "shard", "owner:3", "epoch:6", "position:4", "lag", "left:1", "progress:2", "records:5",
    "canary:7", "state",
)  # fmt: skip

_LONGEST = 18
_LOST = "lost: no worker may read it while the coordination table does not answer"
_MOST_EXPLAINED = 5
"""So many problems are shown with their reasons where the table follows."""

_MOST_NAMED = 20
"""So many problems are shown at all where the table follows."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What is asked for: `everything`, shards that are not read any more, too; `wide`, every column; only `problems`.

    `config`: the configuration file, when the command line named one. `rule`: only of this one, and of the group.
    """

    config: Path | None = None
    rule: str | None = None
    everything: bool = False
    wide: bool = False
    problems: bool = False


def problem_lines(found: GroupStatus, shown: Shown) -> Iterator[str]:
    """The verdict, then a line for each problem with the command that helps, and why."""
    assert found.verdict is not None
    yield from _fitting(on_one_line(found.verdict.sentence), "")
    most = len(found.problems) if shown.problems else _MOST_NAMED
    explained = shown.problems or len(found.problems) <= _MOST_EXPLAINED or not sys.stdout.isatty()
    for problem in found.problems[:most]:
        yield from _problem(problem, shown)
        if explained:
            yield from _why(problem, all_of_it=shown.problems)
    if len(found.problems) > most:
        yield f"  and {len(found.problems) - most} more: --problems shows all"


def _problem(problem: Problem, shown: Shown) -> Iterator[str]:
    """What is wrong and what helps: in one line, or in two where one is too long for the terminal."""
    what, helps = f"  {on_one_line(problem.sentence)}:", as_typed(problem.command, shown.config)
    if sys.stdout.isatty() and len(what) + 1 + len(helps) > width():
        yield from _fitting(what, "  ")
        yield f"    {helps}"
    else:
        yield f"{what} {helps}"


def _fitting(sentence: str, indent: str) -> list[str]:
    """A sentence in as many lines as a terminal needs for it."""
    return wrapped(sentence.strip(), indent, f"{indent}  ") if sys.stdout.isatty() else [f"{indent}{sentence.strip()}"]


def _why(problem: Problem, *, all_of_it: bool) -> Iterator[str]:
    said = on_one_line(" ".join(part for part in (problem.reason, problem.advice) if part))
    if sys.stdout.isatty():
        yield from wrapped(said, "    ")
    elif said:
        yield f"    {said}"
    if all_of_it:
        yield f"    {problem.kind}: {problem.runbook}"


# -- notes ---------------------------------------------------------------------------------------------------------


def notes(found: GroupStatus, *, everything: bool) -> Iterator[str]:
    """What is worth knowing and no problem."""
    if found.daemon is None:
        yield "no daemon of this group answers on the admin port: positions and lag are those of the stored rows."
    else:
        yield from _words_of_daemons(found, found.daemon)
        for choice in found.daemon.get("choices", ()):
            for left in choice["left_out"]:
                yield f"rule {choice['rule']} leaves {left['table']} out: {left['reason']} {left['advice']}"
    for name in found.unconfigured:
        yield f"there is progress of rule {name}, which is not configured: `replicator rules` says more."
    yield from map(_job, found.jobs)
    yield from (_away(region, answers=region.region not in found.unanswered) for region in found.regions)
    yield from slow_words(found.pacing)
    over = Counter(shard.over for rule in found.rules for shard in rule.shards if shard.over)
    if over and not everything:
        hidden = " and ".join(f"{counted(count, 'shard')} ({why})" for why, count in sorted(over.items()))
        yield f"hidden: {hidden}; --all shows them."


def _job(job: ListedJob) -> str:
    words = [f"{job.items} of about {job.items_expected} items"]
    words += [] if job.items_per_second is None else [f"{job.items_per_second:,.0f}/s"]
    words += [] if job.eta_seconds is None else [f"{shown_span(job.eta_seconds)} left"]
    words += [job.note] if job.note else []
    return f"job {job.job} on rule {job.rule} is {job.state}: {', '.join(words)}."


def _away(region: RegionStatus, *, answers: bool) -> str:
    """A region that misses changes, in a sentence: "ap: away 3 h, 1 204 keys owed"."""
    if region.paused:
        state = "paused"
    elif region.away_seconds is not None:
        state = f"away {span(region.away_seconds)}"
    else:
        state = "catching up" if answers else "does not answer"
    count = f"{region.keys:,}".replace(",", " ")
    keys = f"{'at least ' if region.more else ''}{count} {'key' if region.keys == 1 else 'keys'} owed"
    oldest = "" if region.oldest_seconds is None else f", the oldest for {span(region.oldest_seconds)}"
    then = f" `replicator resume {region.rule} --region {region.region}` lets it go on." if region.paused else ""
    why = f" {region.why}" if region.why else ""
    return f"rule {region.rule}, {region.region}: {state}, {keys}{oldest}.{why}{then}"


def slow_words(pacing: PacingStatus) -> Iterator[str]:
    """What is written more slowly than it could be, and why."""
    for rule in pacing.slowed:
        yield (
            f"rule {rule.rule} takes {rule.taken_per_second:g} of {rule.write_units} write units a second in"
            f" {rule.region} and is limited by write_units."
        )


def _words_of_daemons(found: GroupStatus, first: Mapping[str, Any]) -> Iterator[str]:
    """What keeps workers from being ready, and which do not answer."""
    daemons = [worker.daemon for worker in found.workers if worker.daemon] or [first]
    reasons = [reason for daemon in daemons for reason in daemon.get("unready", ())]
    said = [problem.reason for problem in found.problems if problem.reason]
    news = [reason for reason in dict.fromkeys(reasons) if not any(each in reason for each in said)]
    yield from (f"not ready: {reason}" for reason in news)
    stock = {region: why for daemon in daemons for region, why in daemon.get("stock_clients", {}).items()}
    for region, why in sorted(stock.items()):
        yield f"the AWS client sends the calls of region {region}, at more CPU than the lean transport: {why}."
    for worker in found.workers:
        if worker.daemon is None:
            where = f"at {worker.admin}" if worker.admin else "and names no admin server that can be reached"
            yield f"worker {worker.worker} does not answer {where}: the lag of its shards is the stored one."


# -- rows ----------------------------------------------------------------------------------------------------------


def rows(found: GroupStatus, *, everything: bool, full: bool) -> Iterator[tuple[str, ...]]:
    """The table. `full`: ids whole, and states with their reasons, which problems tell else."""
    for rule in found.rules:
        shards = [shard for shard in rule.shards if everything or not shard.over]
        if not shards:
            why = "no shard is read any more" if rule.shards else "no shard was read yet"
            whole = [row for row in rule.held if row["target"] is None]
            why = (_held(whole[0]) if full else "held") if whole else why
            if found.coordination_error:
                why = "unknown: the coordination table does not answer"
            yield (rule.name, *[""] * (len(COLUMNS) - 2), why)
        for shard in shards:
            yield from (_row(found, rule, shard, target, full=full) for target in shard.targets)


def _row(
    found: GroupStatus, rule: RuleStatus, shard: ShardStatus, target: TargetStatus, *, full: bool
) -> tuple[str, ...]:
    return (
        rule.name,
        place_of(target.target, target.region, shard.table),
        _which(rule, shard),
        shard.owner or "none",
        "" if shard.epoch is None else str(shard.epoch),
        _short(target.position or "none"),
        _seconds(target.lag_seconds),
        _seconds(target.retention_left_seconds),
        _seconds(target.seconds_since_progress),
        str(target.counts.get("records", "")),
        _canary(found, rule, shard, target),
        shard.over or (_state if full else _word)(rule, shard, target),
    )


def _canary(found: GroupStatus, rule: RuleStatus, shard: ShardStatus, target: TargetStatus) -> str:
    """How long a canary takes to arrive, of the places where the target brings it the slowest; or that it does not."""
    ours = [
        each
        for each in found.canaries
        if (each.rule, each.source, each.table) == (rule.name, shard.region, shard.table)
        and (target.target.region in {None, each.region})
    ]
    late = [each for each in ours if each.late]
    if late:
        return f"none for {span(max(each.age_seconds for each in late))}"
    slowest = max(ours, key=lambda each: each.lag_p99_seconds or 0.0, default=None)
    if slowest is None or slowest.lag_p50_seconds is None or slowest.lag_p99_seconds is None:
        return ""
    return f"{slowest.lag_p50_seconds:.2g} / {slowest.lag_p99_seconds:.2g} s"


def _which(rule: RuleStatus, shard: ShardStatus) -> str:
    """A shard, with its table when the rule has several."""
    several = len({source.table for source in rule.sources}) > 1
    return f"{shard.table} {_short(shard.shard)}" if several and shard.table else _short(shard.shard)


def _short(text: str) -> str:
    """The end of a long id, where ids differ."""
    return text if len(text) <= _LONGEST else f"…{text[1 - _LONGEST :]}"


def _seconds(value: float | None) -> str:
    return "" if value is None else span(value)


def _held(row: Mapping[str, Any]) -> str:
    return f"held: {row['reason']} {row['advice']}".strip()


def _state(rule: RuleStatus, shard: ShardStatus, target: TargetStatus) -> str:
    for row in rule.held:
        if (row["table"], row["target"]) == (shard.table, target.target.text):
            return _held(row)
    blocked = target.blocked
    if blocked is None and target.position == END.text:
        return FINISHED
    if blocked is None and shard.waits is not None:
        return f"waits: {shard.waits.reason} {shard.waits.remedy}".strip()
    if blocked is None and target.state is not None:
        return _LOST if target.state == LOST else f"waits: {target.state}"
    if blocked is None:
        return "unknown" if target.seconds_since_progress is None else "ok"
    key = f"key {blocked['key']}: " if blocked.get("key") else ""
    return f"blocked: {key}{blocked.get('reason', '')} {blocked.get('advice', '')}".strip()


def _word(rule: RuleStatus, shard: ShardStatus, target: TargetStatus) -> str:
    """How a target stands, in a word or two: the reasons are among the problems."""
    said = _state(rule, shard, target)
    if said.startswith("waits") and target.blocked is None and shard.waits is not None:
        return f"waits: {shard.waits.why}"
    return said if target.state is not None and target.blocked is None else said.partition(":")[0]
