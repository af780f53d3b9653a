"""What was done through the admin API, as rows of the coordination table.

Invariant: nothing is done that was not noted before.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.adapters.dynamodb.coordination.audit import MOST_DEEDS, AuditRows
from replicator.domain.audit import Deed, Result
from replicator.domain.errors import EXIT_UNREACHABLE, ReplicatorError
from replicator.domain.values import replace
from replicator.operations.times import moment

if TYPE_CHECKING:
    from datetime import datetime

    from replicator.operations.group import Group

_LONGEST = 500
"""Characters of a text that are kept."""


@dataclass(frozen=True, slots=True)
class ListedDeed:
    """A deed as it is shown."""

    deed: str
    at: datetime | None
    who: str
    what: str
    command: str
    origin: str
    result: Result
    reason: str


async def list_deeds(group: Group, limit: int = MOST_DEEDS) -> list[ListedDeed]:
    """The newest deeds, the newest first."""
    return [
        ListedDeed(
            deed.deed_id, moment(deed.at), deed.who, deed.what, deed.command, deed.origin, deed.result, deed.reason
        )
        for deed in await AuditRows(group.table).newest(limit)
    ]


@asynccontextmanager
async def audited(group: Group, *, who: str, what: str, command: str, origin: str) -> AsyncIterator[Deed]:
    """Note a deed, let it be done, and note what came of it. An error of the first note forbids the deed."""
    rows, now = AuditRows(group.table), (await group.time()).now()
    deed_id = f"{int(now * 1000):013d}-{secrets.token_hex(4)}"
    deed = Deed(deed_id, who, what, command[:_LONGEST], origin, now)
    await rows.note(deed)
    over = replace(deed, result=Result.DONE)
    try:
        yield deed
    except ReplicatorError as error:
        unsure = error.exit_code == EXIT_UNREACHABLE
        over = replace(deed, result=Result.FAILED if unsure else Result.REFUSED, reason=error.sentence[:_LONGEST])
        raise
    except BaseException as error:
        over = replace(deed, result=Result.FAILED, reason=type(error).__name__)
        raise
    finally:
        with suppress(ReplicatorError):  # the row says that it began, and what came of the deed stands
            await rows.note(over)
            await rows.trim()
