"""`replicator pause` and `resume`, shown."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from replicator.cli.confirmation import ask, need_yes
from replicator.cli.output import print_json, say
from replicator.cli.running import loaded, on_group
from replicator.domain.errors import EXIT_STOPPED
from replicator.domain.verdict.kinds import counted, were
from replicator.operations import pauses
from replicator.operations.parked_rows import regions_of
from replicator.settings import OrderedRule

if TYPE_CHECKING:
    from replicator.operations.group import Group


def pause_rule(config: Path | None, name: str, note: str, *, as_json: bool) -> int:
    """Pause a rule and say so."""
    settings = loaded(config)
    changed = on_group(settings, lambda group: pauses.pause(group, name, note))
    seconds = settings.coordination.heartbeat.total_seconds()
    done = f"Rule {name} is paused: workers stop reading for it within about {seconds:g} s. Streams keep 24 h or more."
    return _print(name, done if changed else f"Rule {name} was already paused.", changed, paused=True, as_json=as_json)


def resume_rule(config: Path | None, name: str, *, as_json: bool) -> int:
    """Resume a rule and say so."""
    changed = on_group(loaded(config), lambda group: pauses.resume(group, name))
    done = f"Rule {name} continues from its checkpoint."
    return _print(name, done if changed else f"Rule {name} was not paused.", changed, paused=False, as_json=as_json)


def pause_region(config: Path | None, name: str, region: str, note: str, *, as_json: bool) -> int:
    """Pause a rule in one region, and say where its changes are kept."""
    settings = loaded(config)
    changed = on_group(settings, lambda group: pauses.pause_region(group, name, region, note))
    rule = next((each for each in settings.rules if each.name == name), None)
    keeps = (
        "its changes wait in the stream, which keeps records for 24 hours (a table's own stream)"
        if isinstance(rule, OrderedRule)
        else "its changes are stored as its backlog, and applied when it is resumed"
    )
    seconds = settings.coordination.heartbeat.total_seconds()
    done = f"Rule {name} is paused in {region} within about {seconds:g} s, and runs elsewhere; {keeps}."
    sentence = done if changed else f"Rule {name} was already paused in {region}."
    return _print(name, sentence, changed, paused=True, as_json=as_json, region=region)


def resume_region(  # noqa: PLR0913 - one parameter per option
    config: Path | None, name: str, region: str, *, rebuilt: bool, yes: bool, as_json: bool
) -> int:
    """Resume a rule in a region and say so. `rebuilt`: discard the region's backlog."""
    settings = loaded(config)

    async def work(group: Group) -> tuple[bool, int]:
        forgotten = 0
        if rebuilt:
            need_yes(yes=yes, as_json=as_json)
            ask(f"Was the table of rule {name} in {region} re-created, with the same content as the others?", yes=yes)
            forgotten = await pauses.forget_missed(group, name, region)
        return await pauses.resume_region(group, name, region), forgotten

    changed, forgotten = on_group(settings, work, regions_of(settings) if rebuilt else ())
    done = f"Rule {name} is resumed in {region}."
    sentence = done if changed else f"Rule {name} was not paused in {region}."
    if rebuilt:
        sentence += f" {counted(forgotten, 'key')} of its backlog {were(forgotten)} discarded."
    return _print(name, sentence, changed, paused=False, as_json=as_json, region=region)


def _print(  # noqa: PLR0913 - what is shown
    name: str, sentence: str, changed: bool, *, paused: bool, as_json: bool, region: str | None = None
) -> int:
    if as_json:
        where = {} if region is None else {"region": region}
        print_json({"rule": name, **where, "paused": paused, "changed": changed})
    else:
        say(sentence)
    return EXIT_STOPPED
