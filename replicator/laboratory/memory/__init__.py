"""Every port in memory: the world that tests, the simulator and the explorer run the engine in.

One thing per module: `faults` (failures on demand), `region` (tables), `source` (a written table and its records),
`stream`, `cache`, `sink`, `conflicts`, `owed` and `cache_debt` (what targets and caches did not take), `coordination`
(lineage and leases), `registry` (members, starts, gaps, streams), `jobs`, `scan`, `canaries`.
Invariant: no module here waits by itself, reads a clock, or draws a number that its seed does not decide.
"""

from __future__ import annotations

from replicator.laboratory.memory.cache import MemoryCache, acted, filled, leased, value_entry
from replicator.laboratory.memory.cache_debt import MemoryCacheDebt
from replicator.laboratory.memory.canaries import MemoryCanaryTable
from replicator.laboratory.memory.conflicts import MemoryConflictLog
from replicator.laboratory.memory.coordination import MemoryCoordination
from replicator.laboratory.memory.faults import Fault, Faults
from replicator.laboratory.memory.jobs import MemoryJobs
from replicator.laboratory.memory.owed import MemoryOwedKeys
from replicator.laboratory.memory.region import EMPTY, MemoryRegion, Slot, answer, holds
from replicator.laboratory.memory.registry import MemoryClaims, MemoryMembership, MemoryRegistry
from replicator.laboratory.memory.scan import MemoryScan
from replicator.laboratory.memory.sink import MemorySink
from replicator.laboratory.memory.source import MemorySource
from replicator.laboratory.memory.stamped import StampedSlot, answer_stamped
from replicator.laboratory.memory.stream import MemoryStream
from replicator.ports.targets import OpenFence

__all__ = [
    "EMPTY",
    "Fault",
    "Faults",
    "MemoryCache",
    "MemoryCacheDebt",
    "MemoryCanaryTable",
    "MemoryClaims",
    "MemoryConflictLog",
    "MemoryCoordination",
    "MemoryJobs",
    "MemoryMembership",
    "MemoryOwedKeys",
    "MemoryRegion",
    "MemoryRegistry",
    "MemoryScan",
    "MemorySink",
    "MemorySource",
    "MemoryStream",
    "OpenFence",
    "Slot",
    "StampedSlot",
    "acted",
    "answer",
    "answer_stamped",
    "filled",
    "holds",
    "leased",
    "value_entry",
]
