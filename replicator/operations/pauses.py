"""A rule rests on every worker until it is resumed; both can be repeated."""

from __future__ import annotations

import time

from replicator.domain.identifiers import RuleName
from replicator.operations.group import Group, rule_named


async def pause(group: Group, name: str, note: str = "") -> bool:
    """Pause a rule of the configuration; False when it was paused already."""
    rule = RuleName(rule_named(group.settings, name).name)
    return await group.operations.pause(rule, now=time.time(), note=note)


async def resume(group: Group, name: str) -> bool:
    """Let a rule go on, also one that is no longer configured; False when it was not paused."""
    changed = await group.operations.resume(RuleName(name))
    if not changed:
        rule_named(group.settings, name)
    return changed
