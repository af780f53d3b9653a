"""What drives a rule: pods, or functions that an event source mapping calls. Both look at it by themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.adapters.dynamodb.streams import DynamoStreams
from replicator.domain.driving import Drivers
from replicator.domain.errors import TableMissing
from replicator.domain.identifiers import RuleName
from replicator.domain.owed_keys import OwedFor
from replicator.operations.errors import RequestRefused
from replicator.operations.group import Group, rule_named
from replicator.operations.parked_rows import tables_of
from replicator.settings.compiled_rules import rule_per_source

if TYPE_CHECKING:
    from replicator.settings import RuleSettings


async def drive(group: Group, name: str, by: Drivers) -> bool:
    """Let functions or pods drive a rule of the configuration; False when they do already."""
    rule = rule_named(group.settings, name)
    if by is Drivers.LAMBDA:
        await _refuse_owed(group, rule)
        await _note_starts(group, rule)
    return await group.operations.drive(RuleName(rule.name), by)


async def _refuse_owed(group: Group, rule: RuleSettings) -> None:
    """Only workers bring a region what it missed."""
    for rows in tables_of(group).values():
        try:
            owed = await rows.targets()
        except TableMissing:
            continue
        for to in owed:
            if to.owed_for is OwedFor.AWAY and to.target_id.rule == rule.name:
                raise RequestRefused(
                    f"Region {to.target_id.region} is owed keys of rule {rule.name} that it missed, and functions do"
                    " not bring them.",
                    advice="Let pods drive the rule until `replicator status` shows nothing that is owed.",
                )


async def _note_starts(group: Group, rule: RuleSettings) -> None:
    """A target that never ran starts now, not when the first event comes, which would be passed over."""
    for each in rule_per_source(group.settings, rule) if rule.sources else ():
        stream = await DynamoStreams(group.places[each.source]).current(each.table)
        await group.registry.remember_stream(stream)
        for target in each.targets:
            await group.registry.start(stream, target)
