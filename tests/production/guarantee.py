"""What a failure seen in production is here: a scenario that holds, and mutants under which it must not.

A scenario is a coroutine that raises `GuaranteeBroken` when the guarantee is broken, and nothing else. A mutant takes
the guard out of the production code, in this process and for one test only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

Patch = tuple[Any, str, Callable[[Any], Any]]
"""An owner, the name of what is exchanged in it, and what takes its place, made of the original."""


class GuaranteeBroken(AssertionError):
    """A scenario saw that something happened which must never happen."""


def require(holds: object, guarantee: str) -> None:
    """Raise unless the guarantee holds."""
    if not holds:
        raise GuaranteeBroken(guarantee)


async def eventually(condition: Callable[[], object], guarantee: str, within: float = 60.0) -> float:
    """Wait until something holds; raise when it takes too long. Returns how long it took."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    while not condition():
        require(loop.time() < began + within, f"{guarantee} (not within {within:g} s)")
        await asyncio.sleep(0.05)
    return loop.time() - began


@dataclass(frozen=True, slots=True)
class Mutant:
    """A build without a guard. `removed`: what it lacks, in words."""

    removed: str
    patches: tuple[Patch, ...]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Run without the guard."""
        found = [(_definer(owner, name), name) for owner, name, _ in self.patches]
        kept = [(owner, name, vars(owner)[name]) for owner, name in found]
        try:
            for (owner, name, original), (_, _, make) in zip(kept, self.patches, strict=True):
                setattr(owner, name, make(original))
            yield
        finally:
            for owner, name, original in reversed(kept):
                setattr(owner, name, original)


def _definer(owner: Any, name: str) -> Any:
    """Where a class has a method from, or a module itself."""
    return next((each for each in getattr(owner, "__mro__", ()) if name in vars(each)), owner)


@dataclass(frozen=True, slots=True)
class Failure:
    """A row of the table of failures. `real_time`: it speaks HTTP. `server`: it gets the URL of a DynamoDB server."""

    number: int
    name: str
    scenario: Callable[..., Awaitable[None]]
    mutants: Mapping[str, Mutant]
    real_time: bool = False
    server: bool = False

    @property
    def test_id(self) -> str:
        """How the row's test is called."""
        return f"production_failure_{self.number:02}_{self.name}"
