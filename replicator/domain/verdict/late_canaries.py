"""Canaries that do not arrive, as problems: what explains one, and is a problem already, stands in its place."""

from __future__ import annotations

from collections.abc import Iterator

from replicator.domain.verdict.figures import Figures, LateCanary
from replicator.domain.verdict.kinds import Kind, Problem, span


def late_canaries(figures: Figures, explained: set[str]) -> Iterator[Problem]:
    """What does not arrive, without a reason that is a problem already; what is not written, once for all places."""
    stuck = {each.name for each in figures.targets if each.blocked or each.stalled}
    stuck |= explained | {f"{each.rule}/{each.region}" for each in figures.away}
    caches = {(each.cache, each.region) for each in figures.caches}
    written: set[str] = set()
    for late in figures.canaries:
        if late.unwritten and late.rule not in written | explained:
            written.add(late.rule)
            text = f"the canary of {late.rule} is not written for {span(late.seconds)}"
            advice = "Grant the workers dynamodb:PutItem on the rule's table."
            yield _canary(late, text, late.why or "No write had an answer.", advice)
        elif not late.unwritten and not {late.name, late.rule} & stuck and (late.cache, late.region) not in caches:
            where = f"cache {late.cache} in {late.region}" if late.cache else late.name
            text = f"the canary of {late.rule} does not arrive at {where} for {span(late.seconds)}"
            why = f"One is written every period, and the newest that arrived is {span(late.seconds)} old."
            advice = "Other changes may not arrive either, even if the lag is low."
            yield _canary(late, text, f"{why} {late.why}".strip(), advice)


def _canary(late: LateCanary, text: str, why: str, advice: str) -> Problem:
    place = late.cache or late.region
    return Problem(Kind.CANARY, text, why, advice, "replicator status --wide", late.rule, place, seconds=late.seconds)
