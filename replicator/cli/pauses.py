"""`replicator pause` and `resume`: a rule rests everywhere until somebody lets it go on; both can be repeated."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

from replicator.cli.output import print_json
from replicator.domain.errors import EXIT_STOPPED
from replicator.domain.identifiers import RuleName
from replicator.operations.group import loaded, open_group, rule_named


def pause_rule(config: Path | None, name: str, note: str, *, as_json: bool) -> int:
    """Pause a rule of the configuration."""
    settings = loaded(config)
    rule = RuleName(rule_named(settings, name).name)

    async def work() -> bool:
        async with open_group(settings) as group:
            return await group.operations.pause(rule, now=time.time(), note=note)

    changed = asyncio.run(work())
    seconds = settings.coordination.heartbeat.total_seconds()
    told = f"Rule {name} is paused: workers stop reading for it within about {seconds:g} s. Streams keep 24 hours."
    return _tell(name, told if changed else f"Rule {name} was paused already.", changed, paused=True, as_json=as_json)


def resume_rule(config: Path | None, name: str, *, as_json: bool) -> int:
    """Let a rule go on; also one that is paused and no longer configured."""
    settings = loaded(config)

    async def work() -> bool:
        async with open_group(settings) as group:
            return await group.operations.resume(RuleName(name))

    changed = asyncio.run(work())
    if not changed:
        rule_named(settings, name)
    told = f"Rule {name} goes on where it stood."
    return _tell(name, told if changed else f"Rule {name} was not paused.", changed, paused=False, as_json=as_json)


def _tell(name: str, sentence: str, changed: bool, *, paused: bool, as_json: bool) -> int:
    if as_json:
        print_json({"rule": name, "paused": paused, "changed": changed})
    else:
        sys.stdout.write(sentence + "\n")
    return EXIT_STOPPED
