"""What living daemons say of themselves: their admin servers, found by their heartbeats.

Invariant: a worker that does not answer within a bound is left out, and none is waited for twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import aiohttp

if TYPE_CHECKING:
    from replicator.settings import Settings

_SECONDS = 2.0
_ASKED_AT_ONCE = 32
_OK = 200


async def ask_all(settings: Settings, named: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The /status of every daemon of the group that answers, by its address.

    `named`: addresses that heartbeats bear. The configured port of this machine is asked too.
    """
    addresses = list(dict.fromkeys(address for address in (settings.admin.local_url(), *named) if address))
    turn = asyncio.Semaphore(_ASKED_AT_ONCE)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_SECONDS)) as session:

        async def one(address: str) -> dict[str, Any] | None:
            async with turn:
                return await _ask(session, address, settings.group)

        answers = await asyncio.gather(*(one(address) for address in addresses))
    return {address: answer for address, answer in zip(addresses, answers, strict=True) if answer is not None}


async def _ask(session: aiohttp.ClientSession, address: str, group: str) -> dict[str, Any] | None:
    """What a daemon says; None when there is none, or one of another group."""
    try:
        async with session.get(f"{address.rstrip('/')}/status") as answer:
            document = await answer.json() if answer.status == _OK else None
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
        return None
    return document if isinstance(document, dict) and document.get("group") == group else None


def by_worker(answers: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Answers by worker id: one daemon may answer at two addresses."""
    return {str(answer.get("worker")): answer for answer in answers.values()}
