"""What the servers of a cache say of themselves, and what of that is worth a warning. No calls."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct


class CacheNode(Struct, frozen=True):
    """One server. `slots`: how many it owns, None of a cache that is no cluster; `trouble`: why it says nothing.

    `memory`: bytes that it may use, 0 without a limit; `eviction`: what it does when they are used up.
    """

    address: str
    role: str
    server: str = ""
    slots: int | None = None
    memory: int = 0
    eviction: str = ""
    trouble: str | None = None

    @property
    def shown(self) -> str:
        """For people, on one line."""
        if self.trouble is not None:
            return f"{self.address} ({self.role}): {self.trouble}"
        parts = [self.role, *([] if self.slots is None else [f"{self.slots} slots"]), self.server, self.eviction]
        return f"{self.address} ({', '.join(part for part in parts if part)})"


def eviction_trouble(nodes: Sequence[CacheNode]) -> str | None:
    """What is wrong with what servers do when their memory is used up; None: nothing.

    A server that evicts costs misses; one that does not refuses what readers fill, and what a refresh would store.
    """
    told = [node for node in nodes if node.trouble is None]
    refusing = [node.address for node in told if node.memory and node.eviction == "noeviction"]
    if refusing:
        return (
            f"{', '.join(refusing)}: maxmemory is set and nothing is evicted (noeviction), so that a full one refuses."
        )
    if len({node.eviction for node in told if node.eviction}) > 1:
        return f"Nodes differ: {', '.join(f'{node.address} {node.eviction}' for node in told)}."
    return None
