"""What living daemons say of themselves: their admin servers, found by their heartbeats.

Invariant: whoever does not answer within a bound is left out and named; nobody is waited for twice.
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
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - where to ask, not where to listen


async def ask_all(settings: Settings, told: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The /status of every daemon of the group that answers, by its address.

    `told`: addresses that heartbeats name. The configured port of this machine is asked too.
    """
    addresses = list(dict.fromkeys([*_configured(settings), *(address for address in told if address)]))
    turn = asyncio.Semaphore(_ASKED_AT_ONCE)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_SECONDS)) as session:

        async def one(address: str) -> dict[str, Any] | None:
            async with turn:
                return await _ask(session, address, settings.group)

        answers = await asyncio.gather(*(one(address) for address in addresses))
    return {address: answer for address, answer in zip(addresses, answers, strict=True) if answer is not None}


def _configured(settings: Settings) -> list[str]:
    """Where a daemon of this configuration on this machine listens, unless it takes any port."""
    if settings.admin.port == 0:
        return []
    host = _ANYWHERE.get(settings.admin.host, settings.admin.host)
    shown = f"[{host}]" if ":" in host else host
    return [f"http://{shown}:{settings.admin.port}"]


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
