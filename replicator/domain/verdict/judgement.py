"""The verdict on a group: what is wrong, in the order in which it should be looked at. A pure function of figures.

One judgement for `status` and for a worker's own /status. Invariant: one problem per kind and place, however many
shards show it; and what explains a place (paused, held, blocked) keeps that place's lag from being a problem of its
own.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence

from replicator.domain.verdict.debts import cache_away, parked_keys, region_away
from replicator.domain.verdict.figures import Figures, Loss, TargetFigure, Unread
from replicator.domain.verdict.kinds import Kind, Problem, State, Verdict, counted, loss, span
from replicator.domain.verdict.late_canaries import late_canaries

LAG_SECONDS = 60.0
"""Behind by more than this is a problem."""

CLOCK_SECONDS = 30.0
"""A clock that is off by less is worth no word before it is more."""

SHORT_SECONDS = 6 * 3600.0
"""Less than this until a stream drops records is a problem, whatever it comes from."""


def judge(figures: Figures, only: str | None = None) -> tuple[Verdict, list[Problem]]:
    """The verdict, and the problems in the order in which they should be looked at.

    `only`: those of this rule, and those that are of no rule.
    """
    order = {kind: rank for rank, kind in enumerate(Kind)}
    meant = (each for each in _problems(figures) if only is None or each.rule in {None, only})
    found = [problem.told() for problem in meant]
    found.sort(key=lambda each: (_band(each, order), _left(each), order[each.kind], each.text))
    return _verdict(figures, found), found


def _band(problem: Problem, order: Mapping[Kind, int]) -> int:
    """What keeps the rest from being known, then what loses records, then everything else."""
    if order[problem.kind] <= order[Kind.GAP]:
        return order[problem.kind]
    return len(order) + (_left(problem) >= SHORT_SECONDS)


def _left(problem: Problem) -> float:
    return float("inf") if problem.seconds_left is None else problem.seconds_left


def _verdict(figures: Figures, found: Sequence[Problem]) -> Verdict:
    count = f"{len(found)} problem{'' if len(found) == 1 else 's'}"
    if figures.coordination is not None or figures.unanswered:
        return Verdict(State.UNKNOWN, f"cannot know, {count} in sight: {found[0].sentence}")
    if found:
        return Verdict(State.PROBLEMS, f"{count}: {found[0].sentence}")
    lags = [target.lag for target in figures.targets if target.lag is not None]
    names = {target.name for target in figures.targets}
    unknown = sum(target.lag is None for target in figures.targets)
    rules = f"{figures.rules} rule{'' if figures.rules == 1 else 's'}"
    targets = f"{len(names)} target{'' if len(names) == 1 else 's'}"
    behind = f"at most {span(max(lags))} behind" if lags else "nothing read yet"
    more = f" (not known on {unknown} shard{'' if unknown == 1 else 's'})" if unknown and lags else ""
    return Verdict(State.HEALTHY, f"healthy: {rules}, {targets}, {behind}{more}")


def _problems(figures: Figures) -> Iterator[Problem]:
    explained = _explained(figures)
    if figures.coordination is not None:
        said = figures.coordination
        text = "the coordination table does not answer"
        yield Problem(
            Kind.COORDINATION, text, said.reason, said.advice, "replicator check --failed", seconds=said.seconds
        )
    for region, why in figures.unanswered.items():
        yield Problem(
            Kind.UNANSWERED, f"region {region} does not answer", why, "", "replicator check --failed", place=region
        )
    if figures.workers == 0:
        left = _least(figures.targets)
        yield Problem(
            Kind.NO_WORKER,
            f"no worker of group {figures.group} is alive",
            "No heartbeat moves, and no admin server answers.",
            "Start one; it continues from the stored checkpoints.",
            "replicator run",
            seconds_left=left,
        )
    yield from map(_gap, figures.losses)
    yield from _held(figures)
    yield from _rests(figures)
    yield from _targets(figures, explained)
    yield from (_unread(each, figures) for each in figures.unread)
    yield from map(region_away, figures.away)
    yield from map(cache_away, figures.caches)
    yield from map(parked_keys, figures.refused)
    yield from late_canaries(figures, explained)
    yield from _others(figures)


def _explained(figures: Figures) -> set[str]:
    """Targets, and rules, whose lag has a reason that is a problem already."""
    names = {f"{held.rule}/{held.place}" if held.place else held.rule for held in figures.held}
    names |= {f"{rest.rule}/{rest.region}" if rest.region else rest.rule for rest in figures.rests}
    return names | {unread.rule for unread in figures.unread}


def _gap(lost: Loss) -> Problem:
    rule, place = lost.rule, lost.place
    if lost.job is not None and lost.over:
        return Problem(
            Kind.GAP,
            f"{rule}/{place} lost records, and job {lost.job}, which should repair them, has ended",
            "Records left the stream before they were read. A job that failed, was cancelled or left differences does"
            " not close the gap.",
            f"`replicator jobs show {lost.job}` shows the remaining differences; resolve their cause, then repair"
            " the rule again.",
            f"replicator repair {shlex.quote(rule)}",
            rule,
            place,
        )
    if lost.job is not None:
        return Problem(
            Kind.GAP,
            f"{rule}/{place} lost records, which job {lost.job} repairs",
            "Records left the stream before they were read.",
            "The repair closes the gap.",
            f"replicator jobs show {lost.job}",
            rule,
            place,
        )
    return Problem(
        Kind.GAP,
        f"{rule}/{place} lost records",
        "Records left the stream before they were read.",
        f"`replicator gaps acknowledge {lost.gap}` accepts the loss, after a repair or without one.",
        f"replicator repair {shlex.quote(rule)}",
        rule,
        place,
    )


def _held(figures: Figures) -> Iterator[Problem]:
    for held in figures.held:
        name = f"{held.rule}/{held.place}" if held.place else held.rule
        ours = [each for each in figures.targets if each.rule == held.rule and held.place in {None, each.place}]
        command = "replicator check --failed"
        if held.cause == "replaced" and held.region:
            command = f"replicator rules accept {shlex.quote(held.rule)} --region {held.region}"
        yield Problem(
            Kind.HELD,
            f"{name} is held ({held.cause})",
            held.trouble.reason,
            held.trouble.advice,
            command,
            held.rule,
            held.place,
            len(ours),
            held.trouble.seconds,
            _least(ours),
        )


def _rests(figures: Figures) -> Iterator[Problem]:
    for rest in figures.rests:
        ours = [each for each in figures.targets if each.rule == rest.rule and rest.region in {None, each.place}]
        name = f"{rest.rule}/{rest.region}" if rest.region else rest.rule
        where = f" --region {rest.region}" if rest.region else ""
        since = "" if rest.seconds is None else f" for {span(rest.seconds)}"
        yield Problem(
            Kind.PAUSED,
            f"{name} is paused{since}",
            f"An operator paused it: {rest.note.rstrip('.')}." if rest.note else "An operator paused it.",
            "Its changes wait in the stream, which keeps records for 24 hours (a table's own stream).",
            f"replicator resume {shlex.quote(rest.rule)}{where}",
            rest.rule,
            rest.region,
            len(ours),
            rest.seconds,
            _least(ours),
        )


def _targets(figures: Figures, explained: set[str]) -> Iterator[Problem]:
    by_name: dict[str, list[TargetFigure]] = {}
    for each in figures.targets:
        by_name.setdefault(each.name, []).append(each)
    for name, shards in by_name.items():
        first = shards[0]
        if {name, first.rule} & explained:
            continue
        blocked = [each for each in shards if each.blocked is not None]
        stalled = [each for each in shards if each.stalled is not None and each.blocked is None]
        if blocked:
            yield _blocked(name, blocked)
        if stalled:
            yield _stalled(name, stalled)
        rest = [each for each in shards if each.blocked is None and each.stalled is None]
        if figures.workers != 0:
            yield from _late(name, rest)


def _blocked(name: str, shards: Sequence[TargetFigure]) -> Problem:
    worst = min(shards, key=lambda each: (float("inf") if each.left is None else each.left, each.shard or ""))
    said, rule = worst.blocked, shlex.quote(worst.rule)
    assert said is not None
    item = f" by item {said.key}" if said.key else ""
    on = f" on {len(shards)} shards" if len(shards) > 1 else ""
    return Problem(
        Kind.BLOCKED,
        f"{name} is blocked{item}{on}",
        said.reason,
        said.advice,
        f"replicator inspect {rule} {shlex.quote(said.key)}" if said.key else "replicator check --failed",
        worst.rule,
        worst.place,
        len(shards),
        said.seconds,
        _least(shards),
    )


def _stalled(name: str, shards: Sequence[TargetFigure]) -> Problem:
    first, said = shards[0], shards[0].stalled
    assert said is not None
    return Problem(
        Kind.STALLED,
        f"{name} does not progress on {counted(len(shards), 'shard')}",
        said.reason,
        said.advice,
        f"replicator leases release --shard {first.shard}",
        first.rule,
        first.place,
        len(shards),
        said.seconds,
        _least(shards),
    )


def _late(name: str, shards: Sequence[TargetFigure]) -> Iterator[Problem]:
    """What is behind without a reason that is known."""
    behind = [each for each in shards if each.lag is not None and each.lag > LAG_SECONDS]
    left = _least(behind)
    if not behind:
        return
    lag = max(each.lag or 0.0 for each in behind)
    short = left is not None and left < SHORT_SECONDS
    text = f"{name} {loss(left or 0.0)}" if short else f"{name} is {span(lag)} behind"
    yield Problem(
        Kind.RETENTION if short else Kind.LAG,
        text,
        f"It is {span(lag)} behind on {counted(len(behind), 'shard')}.",
        "The target is applied too slowly, or its shard is not read: the table shows which.",
        "replicator status --watch",
        behind[0].rule,
        behind[0].place,
        len(behind),
        lag,
        left,
    )


def _unread(unread: Unread, figures: Figures) -> Problem:
    ours = [each for each in figures.targets if each.rule == unread.rule and each.shard in unread.shards]
    what = f"{counted(len(unread.shards), 'shard')} of {unread.rule}" if unread.shards else unread.rule
    verb = "does" if len(unread.shards) <= 1 else "do"
    return Problem(
        Kind.UNREAD,
        f"{what} {verb} not move",
        unread.trouble.reason,
        unread.trouble.advice,
        f"replicator leases list --rule {shlex.quote(unread.rule)}",
        unread.rule,
        None,
        len(unread.shards),
        unread.trouble.seconds,
        _least(ours),
    )


def _others(figures: Figures) -> Iterator[Problem]:
    for rule in figures.not_run:
        yield Problem(
            Kind.NOT_RUN,
            f"{rule} is configured and no worker runs it",
            "The workers that answer have another configuration.",
            "Deploy this file to every worker of the group, and restart them.",
            "replicator run",
            rule,
        )
    for rule in figures.mixed:
        yield Problem(
            Kind.CONFIGURATION,
            f"workers differ in {rule}",
            "They are configured differently for it, so what becomes of a change depends on who reads its shard.",
            "Give every worker of the group the same file; while it is rolled out this passes by itself.",
            "replicator reload --dry-run",
            rule,
        )
    yield from _services(figures)
    for sentence in figures.unreadable:
        yield Problem(
            Kind.UNREADABLE,
            "a row cannot be read",
            sentence,
            "",
            "replicator leases list --all",
        )
    for each in figures.throttled:
        yield Problem(
            Kind.THROTTLED,
            f"{each.table} in {each.region} throttles {each.rule}",
            f"It accepts few of its requests, so at most {each.allowed} are sent at a time.",
            "Raise its capacity, or that of the region's side table.",
            "replicator status --watch",
            each.rule,
            each.region,
        )
    for rule, count in figures.differences.items():
        yield Problem(
            Kind.DIFFERENCES,
            f"the last comparison of {rule} found {counted(count, 'difference')}",
            "Items differ although no change of them is in flight.",
            "",
            f"replicator repair {shlex.quote(rule)}",
            rule,
        )
    yield from _clocks(figures)
    if figures.configuration is not None:
        refused = figures.configuration
        text = "a changed configuration is refused"
        command = "replicator reload --dry-run"
        yield Problem(Kind.CONFIGURATION, text, refused.reason, refused.advice, command, seconds=refused.seconds)


def _clocks(figures: Figures) -> Iterator[Problem]:
    for worker, behind in sorted(figures.clocks.items()):
        if abs(behind) >= CLOCK_SECONDS:
            where = f"{abs(behind):.0f} s {'behind' if behind > 0 else 'ahead of'} that of AWS"
            why = "Rows and lag figures use AWS's time, but its log bears the time of its clock."
            advice = "Synchronise that machine (NTP)."
            yield Problem(Kind.CLOCK, f"the clock of {worker} is {where}", why, advice, "replicator check --failed")


def _services(figures: Figures) -> Iterator[Problem]:
    """What workers do in the background and cannot, one problem for each reason that is no other problem's."""
    told = {each.blocked.reason for each in figures.targets if each.blocked is not None}
    told |= {each.trouble.reason for each in figures.held}
    coordination = "" if figures.coordination is None else figures.coordination.reason
    by_reason: dict[tuple[str, str], list[str]] = {}
    for name, said in figures.services.items():
        if said.reason not in told and said.reason not in coordination:
            by_reason.setdefault((said.reason, said.advice), []).append(name)
    for (reason, advice), names in by_reason.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        verb = "fail" if more else "fails"
        seconds = max((figures.services[name].seconds or 0.0 for name in names), default=None)
        text = f"{names[0]}{more} {verb}"
        yield Problem(Kind.SERVICE, text, reason, advice, "replicator check --failed", seconds=seconds)


def _least(targets: Iterable[TargetFigure]) -> float | None:
    """The shortest time until records are dropped, where some wait."""
    return min((each.left for each in targets if each.left is not None and each.lag != 0), default=None)
