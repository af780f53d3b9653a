"""`replicator init`: what the rules need, created once; every step told."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from replicator.cli.output import print_json, print_rows
from replicator.domain.errors import EXIT_STOPPED, EXIT_UNREACHABLE, EXIT_WRONG_WORLD
from replicator.settings.loading import configuration_path, load

if TYPE_CHECKING:
    from replicator.checks.creation import Step
    from replicator.settings import Settings


def initialise_world(config: Path | None, *, dry_run: bool, enable_streams: bool, as_json: bool) -> int:
    """Create and tell; returns the exit code."""
    from replicator.checks.facts import for_the_end

    settings = load(configuration_path(config))
    steps = asyncio.run(_create(settings, dry_run=dry_run, enable_streams=enable_streams))
    words = [for_the_end(step.error.sentence) if step.error else None for step in steps]
    codes = {step.error.exit_code for step in steps if step.error is not None}
    code = EXIT_STOPPED
    if codes:
        code = EXIT_UNREACHABLE if codes == {EXIT_UNREACHABLE} else EXIT_WRONG_WORLD
    if as_json:
        rows = [
            {"subject": step.subject, "action": step.action, "error": error}
            for step, error in zip(steps, words, strict=True)
        ]
        print_json({"steps": rows, "dry_run": dry_run, "exit_code": code})
    else:
        print_rows(
            ("subject", "action", "what to do"),
            [(step.subject, step.action, error or "") for step, error in zip(steps, words, strict=True)],
        )
    return code


async def _create(settings: Settings, *, dry_run: bool, enable_streams: bool) -> list[Step]:
    from replicator.adapters.clients import open_places
    from replicator.checks.creation import Step, initialise
    from replicator.checks.table_choices import TableFinder
    from replicator.settings import expanded

    async with open_places(settings) as places:
        chosen = await TableFinder(settings, places).look()
        failed = [Step(f"tables of rule {name}", "failed", error) for name, error in chosen.failed.items()]
        known = expanded(settings, chosen.tables)
        return [*failed, *await initialise(known, places, dry_run=dry_run, enable_streams=enable_streams)]
