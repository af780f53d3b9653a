"""Living workers look at their configuration now, as their admin servers answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp

from replicator.domain.errors import Unreachable
from replicator.operations.worker_status import ask_all, by_worker

if TYPE_CHECKING:
    from replicator.operations.group import Group

_SECONDS = 60.0
"""A look at the world of new rules takes a while."""

_OK = 200


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What became of one worker's look: `unchanged`, `applied`, `applicable`, `refused`, or `silent`.

    `file`: a digest of what its file says now, which is the same for all workers of the same file.
    """

    worker: str
    result: str
    changes: str
    reasons: Sequence[str]
    file: str = ""


async def reload(group: Group, *, dry_run: bool = False) -> list[Reloaded]:
    """Let every worker that answers take up what its file says now; `dry_run`: only say what it would do."""
    pulses = await group.membership.members()
    answers = await ask_all(group.settings, (pulse.admin for pulse in pulses.values()))
    addresses = {worker: _address(answers, worker) for worker in by_worker(answers)}
    if not addresses:
        raise Unreachable(
            f"No worker of group {group.settings.group} answers on its admin port.",
            advice="Workers look at their file by themselves, every 2 seconds, and at SIGHUP; for another group restart"
            " them.",
        )
    silent = [Reloaded(worker, "silent", "", ()) for worker in pulses if worker not in addresses]
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_SECONDS)) as session:
        asked = [_ask(session, worker, address, dry_run=dry_run) for worker, address in sorted(addresses.items())]
        return [*await asyncio.gather(*asked), *silent]


def _address(answers: dict[str, dict[str, Any]], worker: str) -> str:
    return next(address for address, answer in answers.items() if str(answer.get("worker")) == worker)


async def _ask(session: aiohttp.ClientSession, worker: str, address: str, *, dry_run: bool) -> Reloaded:
    url = f"{address.rstrip('/')}/reload{'?dry_run=1' if dry_run else ''}"
    try:
        async with session.post(url) as answer:
            said = await answer.json() if answer.status == _OK else {}
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
        said = {}
    return Reloaded(
        worker, said.get("result", "silent"), said.get("changes", ""), said.get("reasons", ()), said.get("file", "")
    )
