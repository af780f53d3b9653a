"""Guards against worlds that change, taken out: `held`'s scenarios must not survive without them."""

from __future__ import annotations

from typing import Any

from replicator.engine.applying.gate import Gate
from replicator.laboratory.memory import MemoryStream
from tests.production.guarantee import Mutant


def _not_doubted(_: Any) -> Any:
    def doubt(self: Any, error: Any) -> None:
        return

    return doubt


def _no_gate(_: Any) -> Any:
    async def pass_gate(self: Any, job: Any) -> None:
        return

    return pass_gate


def _always(_: Any) -> Any:
    async def shows_images(self: Any, stream: Any) -> bool:
        return True

    return shows_images


CREATED_ANEW = {
    "missing_tables_are_doubted": Mutant(
        "an answer that a table is missing closes its gate", ((Gate, "doubt", _not_doubted),)
    ),
    "nothing_passes_a_closed_gate": Mutant("nothing is begun while the gate is closed", ((Gate, "passed", _no_gate),)),
}
SHOWS_TOO_LITTLE = {
    "streams_are_asked_what_they_show": Mutant(
        "a successor is asked whether it shows images", ((MemoryStream, "shows_images", _always),)
    ),
}
