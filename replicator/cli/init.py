"""`replicator init`: what the rules need, created once; every step is shown."""

from __future__ import annotations

import asyncio
from pathlib import Path

from replicator.cli.output import print_json, print_rows
from replicator.cli.running import loaded
from replicator.domain.errors import EXIT_STOPPED, EXIT_UNREACHABLE, EXIT_WRONG_WORLD
from replicator.operations.provisioning import create


def initialise_world(config: Path | None, *, dry_run: bool, enable_streams: bool, replicas: bool, as_json: bool) -> int:
    """Create and print; returns the exit code."""
    steps = asyncio.run(create(loaded(config), dry_run=dry_run, enable_streams=enable_streams, replicas=replicas))
    words = [step.error.sentence if step.error else None for step in steps]
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
