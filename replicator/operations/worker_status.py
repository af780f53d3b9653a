"""What living daemons say of themselves: their admin servers, found by their heartbeats.

Invariant: a worker that does not answer within a bound is left out, and none is waited for twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import aiohttp

from replicator.domain.targets import TargetId, parse_target

if TYPE_CHECKING:
    from replicator.settings import Settings

_SECONDS = 2.0
_ASKED_AT_ONCE = 32
_OK = 200

_Shard = tuple[str | None, str]
"""Stream ARN and shard: ids of shards alone may collide."""

Live = dict[_Shard, dict[TargetId, Mapping[str, Any]]]
"""What workers say of targets, by shard."""


async def ask_all(settings: Settings, named: Iterable[str], path: str = "/status") -> dict[str, dict[str, Any]]:
    """What every daemon of the group that answers says of itself, by its address.

    `named`: addresses that heartbeats bear. The configured port of this machine is asked too.
    """
    addresses = list(dict.fromkeys(address for address in (*settings.admin.local_urls(), *named) if address))
    turn = asyncio.Semaphore(_ASKED_AT_ONCE)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_SECONDS)) as session:

        async def one(address: str) -> dict[str, Any] | None:
            async with turn:
                return await _ask(session, f"{address.rstrip('/')}{path}", settings.group)

        answers = await asyncio.gather(*(one(address) for address in addresses))
    return {address: answer for address, answer in zip(addresses, answers, strict=True) if answer is not None}


async def _ask(session: aiohttp.ClientSession, url: str, group: str) -> dict[str, Any] | None:
    """What a daemon says; None when there is none, or one of another group."""
    try:
        async with session.get(url) as answer:
            document = await answer.json() if answer.status == _OK else None
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
        return None
    return document if isinstance(document, dict) and document.get("group") == group else None


def by_worker(answers: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Answers by worker id: one daemon may answer at two addresses."""
    return {str(answer.get("worker")): answer for answer in answers.values()}


def held_of(daemons: Mapping[str, Mapping[str, Any]], rule: str) -> list[Mapping[str, Any]]:
    """What workers say is held of a rule: each thing once, however many workers say it."""
    found = {
        (row["table"], row["target"] or ""): row
        for daemon in daemons.values()
        for row in daemon.get("held", ())
        if row["rule"] == rule
    }
    return [found[key] for key in sorted(found)]


def chosen_of(daemons: Mapping[str, Mapping[str, Any]]) -> dict[str, set[str]]:
    """The tables of rules that choose them, as living workers have chosen."""
    found: dict[str, set[str]] = {}
    for daemon in daemons.values():
        for choice in daemon.get("choices", ()):
            found.setdefault(choice["rule"], set()).update(choice["tables"])
    return found


def live_of(
    daemons: Mapping[str, Mapping[str, Any]], owners: Mapping[_Shard, str | None], rule: str, *, lost: bool
) -> Live:
    """What workers say about a rule. Of a shard that two speak of, the owner's word counts.

    `owners`: who has each shard, as is stored. `lost`: that is not known, so what workers have read before counts, too,
    and what one reported for all.
    """
    found: Live = {}
    for worker, daemon in daemons.items():
        for known in daemon.get("rules", ()):
            for shard in known.get("shards", ()) if known.get("name") == rule else ():
                key = (shard.get("stream"), shard["shard"])
                targets = found.setdefault(key, {})
                for target in shard.get("targets", ()):
                    target_id = parse_target(target["target"])
                    if target_id and (target_id not in targets or owners.get(key) == worker):
                        targets[target_id] = target
    standing = [each for daemon in daemons.values() for each in daemon.get("standing", ())] if lost else []
    for each in standing:
        target_id = parse_target(each["target"])
        if target_id and target_id.rule == rule and each["shard"] is not None:
            found.setdefault((each["stream"], each["shard"]), {}).setdefault(target_id, each)
    return found
