"""`replicator pause` and `resume`, shown."""

from __future__ import annotations

import sys
from pathlib import Path

from replicator.cli.output import print_json
from replicator.cli.running import loaded, on_group
from replicator.domain.errors import EXIT_STOPPED
from replicator.operations import pauses


def pause_rule(config: Path | None, name: str, note: str, *, as_json: bool) -> int:
    """Pause a rule and say so."""
    settings = loaded(config)
    changed = on_group(settings, lambda group: pauses.pause(group, name, note))
    seconds = settings.coordination.heartbeat.total_seconds()
    done = f"Rule {name} is paused: workers stop reading for it within about {seconds:g} s. Streams keep 24 hours."
    return _print(name, done if changed else f"Rule {name} was paused already.", changed, paused=True, as_json=as_json)


def resume_rule(config: Path | None, name: str, *, as_json: bool) -> int:
    """Let a rule go on and say so."""
    changed = on_group(loaded(config), lambda group: pauses.resume(group, name))
    done = f"Rule {name} goes on from its position."
    return _print(name, done if changed else f"Rule {name} was not paused.", changed, paused=False, as_json=as_json)


def _print(name: str, sentence: str, changed: bool, *, paused: bool, as_json: bool) -> int:
    if as_json:
        print_json({"rule": name, "paused": paused, "changed": changed})
    else:
        sys.stdout.write(sentence + "\n")
    return EXIT_STOPPED
