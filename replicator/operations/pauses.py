"""A rule rests on every worker until it is resumed, everywhere or in one of its regions; both can be repeated."""

from __future__ import annotations

from replicator.domain.identifiers import RegionId, RuleName
from replicator.domain.owed_keys import OwedFor
from replicator.operations.errors import RequestRefused
from replicator.operations.group import Group, rule_named
from replicator.operations.parked_rows import tables_of


async def pause(group: Group, name: str, note: str = "") -> bool:
    """Pause a rule of the configuration; False when it was paused already."""
    rule = RuleName(rule_named(group.settings, name).name)
    return await group.operations.pause(rule, now=(await group.time()).now(), note=note)


async def resume(group: Group, name: str) -> bool:
    """Let a rule go on, also one that is no longer configured; False when it was not paused."""
    changed = await group.operations.resume(RuleName(name))
    if not changed:
        rule_named(group.settings, name)
    return changed


async def pause_region(group: Group, name: str, region: str, note: str = "") -> bool:
    """Let a rule of the configuration rest in one region that it writes; False when it did already."""
    _check_writes(group, name, region, f"`replicator pause {name}` pauses the whole rule")
    return await group.operations.pause_region(
        RuleName(name), RegionId(region), now=(await group.time()).now(), note=note
    )


async def forget_missed(group: Group, name: str, region: str) -> int:
    """A region was rebuilt, so what it missed is owed to it no more; returns how many keys that were."""
    forgotten = 0
    for rows in tables_of(group).values():
        for to in await rows.targets():
            if to.owed_for is OwedFor.AWAY and (to.target_id.rule, to.target_id.region) == (name, region):
                forgotten += await rows.move(to, None)
    return forgotten


async def resume_region(group: Group, name: str, region: str) -> bool:
    """Let a rule go on in a region, also one that is no longer configured; False when it did not rest there."""
    changed = await group.operations.resume_region(RuleName(name), RegionId(region))
    if not changed:
        _check_writes(group, name, region, f"`replicator resume {name}` lets all of it go on")
    return changed


def _check_writes(group: Group, name: str, region: str, instead: str) -> None:
    regions = rule_named(group.settings, name).regions_written
    if region not in regions:
        raise RequestRefused(
            f"Rule {name} writes no table in {region}.", advice=f"It writes in {', '.join(regions)}; {instead}."
        )
