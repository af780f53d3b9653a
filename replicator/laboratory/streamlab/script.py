"""Scripts: commands at moments or at counts, and the way from a command's name to the laboratory's method.

Invariant: what a script can do, `POST /_lab/<command>` can do, and the other way round.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from replicator.laboratory.streamlab.refusals import Refused

if TYPE_CHECKING:
    from replicator.laboratory.streamlab.laboratory import Laboratory

COMMANDS: Final = (
    "adopt",
    "advance",
    "clear",
    "contradict",
    "expire",
    "fault",
    "freeze",
    "generate",
    "hide",
    "honest",
    "lose_pages",
    "make",
    "merge",
    "recreate",
    "reshard",
    "roll",
    "set",
    "settle",
    "split",
    "trim",
    "vanish",
)
_LOOK_SECONDS: Final = 0.02


class Step(msgspec.Struct, forbid_unknown_fields=True):
    """One command of a script.

    It runs `at` so many seconds after the script began and when the laboratory has `records` records and has seen
    `calls` GetRecords calls; then again `every` so many seconds, `times` in all (None: for ever, if `every` is given).
    """

    do: str
    with_: dict[str, Any] = msgspec.field(default_factory=dict, name="with")
    at: float = 0.0
    records: int = 0
    calls: int = 0
    every: float | None = None
    times: int | None = None


def parse_script(document: object) -> list[Step]:
    """A script from plain data."""
    try:
        steps = msgspec.convert(document, list[Step])
    except msgspec.ValidationError as error:
        raise Refused(f"The script is none: {error}.") from None
    for step in steps:
        if step.do not in COMMANDS:
            raise Refused(f"There is no command {step.do}.")
    return steps


async def command(lab: Laboratory, name: str, arguments: Mapping[str, Any]) -> Any:
    """Run one command."""
    if name not in COMMANDS:
        raise Refused(f"There is no command {name}; there are: {', '.join(COMMANDS)}.")
    method = getattr(lab, name)
    try:
        inspect.signature(method).bind(**arguments)
    except TypeError as error:
        raise Refused(f"Command {name}: {error}.") from None
    result = method(**arguments)
    return await result if inspect.isawaitable(result) else result


async def run_script(lab: Laboratory, steps: Sequence[Step]) -> None:
    """Run a script to its end; each step waits for its own moment only."""
    async with asyncio.TaskGroup() as group:
        for number, step in enumerate(steps):
            group.create_task(_run_step(lab, step), name=f"step-{number}-{step.do}")


async def _run_step(lab: Laboratory, step: Step) -> None:
    started = time.monotonic()
    while time.monotonic() - started < step.at or not _reached(lab, step):  # noqa: ASYNC110 - many things count
        await asyncio.sleep(_LOOK_SECONDS)
    runs = 0
    while True:
        await command(lab, step.do, step.with_)
        runs += 1
        if step.every is None or runs == step.times:
            return
        await asyncio.sleep(step.every)


def _reached(lab: Laboratory, step: Step) -> bool:
    return (
        sum(stream.records for stream in lab.tables.streams()) >= step.records
        and lab.counters.calls["GetRecords"].total >= step.calls
    )
