"""`replicator gaps list` and `acknowledge`: what was lost before it was read, and an operator's word that it may be."""

from __future__ import annotations

import asyncio
import getpass
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from replicator.cli.confirmation import ask, need_yes
from replicator.cli.output import print_json, print_rows
from replicator.domain.errors import EXIT_STOPPED
from replicator.operations.errors import RequestRefused
from replicator.operations.group import Group, loaded, open_group, shown_position

if TYPE_CHECKING:
    from replicator.adapters.dynamodb.coordination import StoredGap
    from replicator.settings import Settings

_COLUMNS = ("gap", "found", "target", "stream", "shard", "after", "until", "why", "acknowledged")
_LEAST_OF_ID = 4


def list_gaps(config: Path | None, rule: str | None, *, everything: bool, as_json: bool) -> int:
    """Print losses, oldest first: those that nobody acknowledged, or all."""
    settings = loaded(config)
    found = [stored for stored in asyncio.run(_stored(settings)) if rule in {None, stored.gap.target_id.rule}]
    shown = [stored for stored in found if everything or stored.acknowledged_at is None]
    if as_json:
        print_json({"group": settings.group, "gaps": [document(stored) for stored in shown]})
        return EXIT_STOPPED
    print_rows(_COLUMNS, [_row(stored) for stored in shown])
    if not shown:
        sys.stderr.write("replicator: there is no gap that matches.\n")
    if len(found) > len(shown):
        sys.stderr.write(f"replicator: {len(found) - len(shown)} acknowledged gaps are hidden; --all shows them.\n")
    return EXIT_STOPPED


def acknowledge_gap(config: Path | None, gap_id: str, note: str, *, yes: bool, as_json: bool) -> int:
    """Accept a loss, so that a target that stands at it goes on behind it."""
    settings = loaded(config)
    return asyncio.run(_acknowledge(settings, gap_id, note, yes=yes, as_json=as_json))


async def _acknowledge(settings: Settings, gap_id: str, note: str, *, yes: bool, as_json: bool) -> int:
    async with open_group(settings) as group:
        stored = _one(await group.operations.gaps(), gap_id)
        changed = stored.acknowledged_at is None
        if changed:
            need_yes(yes=yes, as_json=as_json)
            if not as_json:
                sys.stdout.write(_meaning(stored) + "\n")
            ask("Accept this loss?", yes=yes)
            changed = await group.operations.acknowledge(stored.gap, now=time.time(), by=_who(), note=note)
        stored = _one(await group.operations.gaps(), stored.gap.gap_id)
    if not changed and stored.acknowledged_at is None:
        raise RequestRefused(
            f"Gap {stored.gap.gap_id} has grown meanwhile, and was not acknowledged: {_meaning(stored)}",
            advice="Acknowledge it as it is now, with the same command.",
        )
    if as_json:
        print_json({**document(stored), "changed": changed})
    elif changed:
        sys.stdout.write(f"Gap {stored.gap.gap_id} is acknowledged: a target that stopped at it goes on behind it.\n")
    else:
        sys.stdout.write(f"Gap {stored.gap.gap_id} was acknowledged already, by {stored.acknowledged_by}.\n")
    return EXIT_STOPPED


async def _stored(settings: Settings) -> list[StoredGap]:
    async with open_group(settings) as group:
        return await group.operations.gaps()


async def open_gaps(group: Group) -> list[StoredGap]:
    """Losses that nobody has acknowledged."""
    return [stored for stored in await group.operations.gaps() if stored.acknowledged_at is None]


def _one(gaps: Sequence[StoredGap], gap_id: str) -> StoredGap:
    """The gap whose id begins so."""
    found = [stored for stored in gaps if len(gap_id) >= _LEAST_OF_ID and stored.gap.gap_id.startswith(gap_id)]
    if len(found) > 1:
        raise RequestRefused(f"{len(found)} gaps begin with {gap_id}.", advice="Write more of the id.")
    if not found:
        raise RequestRefused(
            f"There is no gap {gap_id}.",
            advice=f"`replicator gaps list --all` lists them; write at least {_LEAST_OF_ID} characters of the id.",
        )
    return found[0]


def _meaning(stored: StoredGap) -> str:
    gap = stored.gap
    until = "" if gap.until is None else f" up to {gap.until.text}"
    return (
        f"Records of shard {gap.shard_id} of {gap.stream.region}:{gap.stream.table} behind {gap.after.text}{until}"
        f" never reached {gap.target_id}, or may not have: {gap.why}\n"
        "Items that changed only there differ until they are written again; items deleted there are still there."
    )


def _who() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "somebody"


# -- showing -------------------------------------------------------------------------------------------------------


def document(stored: StoredGap) -> dict[str, Any]:
    """A gap as JSON."""
    gap = stored.gap
    return {
        "gap": gap.gap_id,
        "rule": gap.target_id.rule,
        "target": gap.target_id.text,
        "region": gap.stream.region,
        "table": gap.stream.table,
        "stream": gap.stream.arn,
        "shard": gap.shard_id,
        "after": gap.after.text,
        "until": shown_position(gap.until),
        "found_at": _time(gap.found_at),
        "grown_at": _time(stored.grown_at),
        "why": gap.why,
        "acknowledged_at": _time(stored.acknowledged_at),
        "acknowledged_by": stored.acknowledged_by,
        "note": stored.note,
    }


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _row(stored: StoredGap) -> list[str]:
    told = document(stored)
    accepted = f"{told['acknowledged_at']} by {stored.acknowledged_by} {stored.note}" if stored.acknowledged_at else ""
    return [
        told["gap"],
        told["found_at"],
        told["target"],
        f"{told['region']}:{told['table']}",
        told["shard"],
        told["after"],
        told["until"] or "not known",
        told["why"],
        accepted.strip(),
    ]
