"""What drives a rule: pods, or functions that an event source mapping calls. Both look at it by themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.adapters.dynamodb.streams import whole_listing
from replicator.adapters.sources import stream_behind, stream_of
from replicator.domain.drivers import Drivers
from replicator.domain.driving import leaves_no_loss
from replicator.domain.errors import RecordsTrimmed, TableMissing
from replicator.domain.identifiers import RuleName
from replicator.domain.modes.ordered import InsertGuard
from replicator.domain.owed_keys import OwedFor
from replicator.domain.progress import BEGINNING, END, HORIZON
from replicator.domain.shards.leases import Rewind
from replicator.operations.errors import RequestRefused
from replicator.operations.group import Group, Move, rule_named
from replicator.operations.parked_rows import tables_of
from replicator.settings import OrderedRule
from replicator.settings.compiled_rules import rule_per_source

if TYPE_CHECKING:
    from replicator.domain.progress import Position
    from replicator.domain.shards.leases import LeaseRow, StreamRef
    from replicator.ports.sources import Stream
    from replicator.settings import RuleSettings


async def drive(group: Group, name: str, by: Drivers) -> bool:
    """Let functions or pods drive a rule of the configuration; False when they do already."""
    rule = rule_named(group.settings, name)
    if by is Drivers.LAMBDA:
        _refuse_unfit(rule)
        await _refuse_owed(group, rule)
        await _note_starts(group, rule)
        driving = (await group.membership.driven()).get(RuleName(rule.name))
        if driving is None or driving.by is not Drivers.LAMBDA:  # else what they noted since tells of losses
            await group.function_notes.forget(RuleName(rule.name))
    else:
        await _excuse(group, RuleName(rule.name))
    return await group.operations.drive(RuleName(rule.name), by)


def _refuse_unfit(rule: RuleSettings) -> None:
    """Functions would refuse each of its batches."""
    if isinstance(rule, OrderedRule) and InsertGuard(rule.insert_guard) is InsertGuard.PROBE:
        raise RequestRefused(
            f"Rule {rule.name} has `insert_guard: probe`, which needs leases, and functions have no leases.",
            advice="Set `insert_guard: transact` first, or let pods run the rule.",
        )


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
                    advice="Let pods run the rule until `replicator status` shows no backlog.",
                )


async def _note_starts(group: Group, rule: RuleSettings) -> None:
    """A target that never ran starts now, not when the first event comes, which would be passed over."""
    for each in rule_per_source(group.settings, rule) if rule.sources else ():
        stream = await stream_of(group.places[each.source], each.stream).current(each.table)
        await group.registry.remember_stream(stream)
        for target in each.targets:
            await group.registry.start(stream, target)


async def _excuse(group: Group, rule: RuleName) -> None:
    """Let no worker take for a loss what functions brought and has left the streams since."""
    now = (await group.time()).earliest()
    for stored in await group.streams():
        stream, targets = stored.stream, sorted(stored.targets_of({rule}))
        if not targets or not leaves_no_loss(await group.function_notes.find(rule, stream), now):
            continue
        if stored.problems:
            raise stored.problems[0]
        streams = stream_behind(group.places[stream.region], stream)
        listed = await whole_listing(streams, stream)
        await group.coordination.discover(stream, listed, now)
        left = {shard.shard_id for shard in listed}
        for row in (await group.coordination.state(stream)).rows.values():
            moves = {
                target: HORIZON if row.shard_id in left else END
                for target in targets
                if not await _can_go_on(streams, stream, row, row.checkpoints.get(target))
            }
            marks = {target: Rewind(now, HORIZON) for target, place in moves.items() if place == HORIZON}
            if moves:
                await _put(group, stream, row, Move(moves, marks))


async def _put(group: Group, stream: StreamRef, row: LeaseRow, move: Move) -> None:
    await group.move(stream, row, lambda _: move)


async def _can_go_on(streams: Stream, stream: StreamRef, row: LeaseRow, place: Position | None) -> bool:
    """Whether a target's place on a shard shows nothing as lost."""
    if place is None or place in {HORIZON, BEGINNING}:
        return False
    if place == END:
        return True
    try:
        await streams.iterator(stream, row.shard_id, place)
    except RecordsTrimmed:
        return False
    return True
