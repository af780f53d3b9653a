"""A changed configuration, taken up by a daemon that runs: rule by rule, without a restart of the others.

The file is looked at when it changed, at SIGHUP, and when `replicator reload` asks. Invariant: what is invalid, cannot
be applied while the daemon runs, or would be held changes nothing; it is logged, shown by /status, and judged again
later. Rules on other tables than those of changed rules are not touched.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
from msgspec import Struct
from msgspec.structs import asdict

from replicator.app.lifetime import signals_to
from replicator.domain.errors import ConfigurationInvalid, ReplicatorError
from replicator.domain.values import replace
from replicator.observability.logs import configure
from replicator.settings.changes import Changes, changes, secrets_of_rules
from replicator.settings.loading import load

if TYPE_CHECKING:
    from pydantic import BaseModel

    from replicator.observability.status_board import Board
    from replicator.settings import Settings

_LOOK_SECONDS = 2.0
"""A file is looked at so often; it counts when two looks see the same, so that none is read half written."""

_SHOWN_DIGEST = 16
_LOOKS_WHILE_REFUSED = 30
"""What was refused is judged again with so many looks: the world may have been mended."""

_LIVE = frozenset({"log.level", "log.format", "admin.api.read_without_token", "admin.api.hosts"})
_LIVE_PARTS = ("admin.api.tokens.", "secrets.", "regions.", "caches.")
"""What is applied beside rules; regions and caches where no client is open under other settings."""

_IDENTITY = frozenset({"mode", "table", "source", "stream", "regions", "choice", "tags", "events", "version", "epoch"})
"""Fields of a rule that say what its progress is about."""


_STARTING = ReplicatorError("The worker is starting.", advice="Ask again.")


class Outcome(Struct, frozen=True):
    """What became of a look: `unchanged`, `applied`, `refused`, or with a dry run `applicable`."""

    result: str
    changes: str
    reasons: tuple[str, ...] = ()
    file: str = ""
    """The beginning of the SHA-256 of what the file says now; empty when it cannot be read."""


class Reload:
    """The configuration in force, and the looks at its file."""

    def __init__(
        self,
        path: Path,
        settings: Settings,
        board: Board,
    ) -> None:
        self.asked = asyncio.Event()
        """Set by whatever wants a look at once."""
        self.take_up: Callable[[Settings, Changes], Awaitable[Sequence[ReplicatorError]]] | None = None
        """Looks at the world and takes settings up; what it returns forbids that. None as long as the start lasts."""
        self.kept: Callable[[Changes], Awaitable[Sequence[ReplicatorError]]] | None = None
        """Says why rules cannot be taken out, and only looks; None as long as the start lasts."""
        self._path = path
        self._settings = settings
        self._known = Known(settings.regions, settings.caches)
        self._board = board
        self._log = structlog.get_logger("replicator")
        self._seen = _digest(path)
        self._turn = asyncio.Lock()

    @property
    def settings(self) -> Settings:
        """The configuration in force."""
        return self._settings

    async def run(self) -> None:
        """Look again and again until cancelled."""
        before, looks = self._seen, 0
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self.asked.wait(), _LOOK_SECONDS)
            now, looks = await asyncio.to_thread(_digest, self._path), looks + 1
            is_due = self._board.configuration is not None and looks >= _LOOKS_WHILE_REFUSED
            if self.asked.is_set() or is_due or (now == before and now != self._seen):
                looks = 0
                self.asked.clear()
                await self.look()
            before = now

    @contextmanager
    def at_hangup(self) -> Iterator[None]:
        """Look at SIGHUP; on a terminal that signal says that the terminal is gone, and ends the program as ever."""
        if sys.stderr.isatty():
            yield
            return
        with signals_to(self.asked.set, [signal.SIGHUP]):
            yield

    async def answer(self, *, dry_run: bool) -> dict[str, Any]:
        """What `replicator reload` is answered."""
        return asdict(await self.look(dry_run=dry_run))

    async def look(self, *, dry_run: bool = False) -> Outcome:
        """Read the file and take up what it says, if that can be; `dry_run`: only say what would become of it."""
        async with self._turn:
            digest = await asyncio.to_thread(_digest, self._path)
            judged = await self._judge(dry_run=dry_run)
            outcome = replace(judged, file="" if digest is None else digest.hex()[:_SHOWN_DIGEST])
            if not dry_run:
                self._seen = digest
                self._tell(outcome)
            return outcome

    async def _judge(self, *, dry_run: bool) -> Outcome:
        try:
            wanted = await asyncio.to_thread(load, self._path)
        except ConfigurationInvalid as error:
            return Outcome("refused", "", tuple(error.message.splitlines()))
        except Exception as error:  # noqa: BLE001 - the boundary: whatever the file does to what reads it
            return Outcome("refused", "", (f"It cannot be read ({type(error).__name__}).",))
        found = changes(self._settings, wanted)
        if found.are_none:
            return Outcome("unchanged", found.shown)
        reasons = not_live(self._settings, wanted, found, self._known)
        if dry_run and not reasons and self.kept is not None:
            try:
                reasons = [error.worker_sentence for error in await self.kept(found)]
            except ReplicatorError as error:
                reasons = [error.worker_sentence]
        if reasons or dry_run:
            return Outcome("refused" if reasons else "applicable", found.shown, tuple(reasons))
        try:
            refused = [_STARTING] if self.take_up is None else await self.take_up(wanted, found)
        except ReplicatorError as error:
            refused = [error]
        if refused:
            return Outcome("refused", found.shown, tuple(error.worker_sentence for error in refused))
        if wanted.log != self._settings.log:
            configure(wanted.log.level, wanted.log.format)
        self._known = self._known.along(wanted)
        self._settings = wanted
        return Outcome("applied", found.shown)

    def _tell(self, outcome: Outcome) -> None:
        if outcome.result != "refused":
            self._board.refuses_configuration(None)
            if outcome.result == "applied":
                self._log.info("configuration_applied", changes=outcome.changes)
            return
        advice = "Correct the file: it is checked again. The previous configuration stays in force."
        error = ConfigurationInvalid(" ".join(outcome.reasons), advice=advice)
        self._board.refuses_configuration(error)
        self._log.warning("configuration_refused", changes=outcome.changes, reason=error.message, advice=advice)


class Known(Struct, frozen=True):
    """Regions and caches as this process learnt of them first; clients may be open under these settings."""

    regions: Mapping[str, BaseModel]
    caches: Mapping[str, BaseModel]

    def along(self, settings: Settings) -> Known:
        """These settings are in force, too."""
        return Known({**settings.regions, **self.regions}, {**settings.caches, **self.caches})

    def differ(self, settings: Settings) -> list[str]:
        """Which of the settings' regions and caches are others."""
        regions = [f"regions.{name}" for name, each in settings.regions.items() if self.regions.get(name, each) != each]
        caches = [f"caches.{name}" for name, each in settings.caches.items() if self.caches.get(name, each) != each]
        return regions + caches


def not_live(before: Settings, after: Settings, found: Changes, known: Known) -> list[str]:
    """Why changes cannot be applied while the daemon runs, one sentence each; empty when they can."""
    restart = "restart the workers for that"
    keyed = {f"secrets.{name}" for name in secrets_of_rules(before)}
    fixed = [key for key in found.keys if key in keyed or not (key in _LIVE or key.startswith(_LIVE_PARTS))]
    reasons = [f"{key} is read at the start only: {restart}." for key in [*fixed, *known.differ(after)]]
    for name, fields in found.changed.items():
        if about := [field for field in fields if field in _IDENTITY]:
            reasons.append(f"{', '.join(about)} of rule {name} say what its progress is about: {restart}.")
    return reasons


def _digest(path: Path) -> bytes | None:
    """What stands in the file; None when it cannot be read."""
    try:
        return sha256(path.read_bytes()).digest()
    except OSError:
        return None
