"""Regions of mode `active-active` in memory, with streams, driven by the production mode one record at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from replicator.domain.conflicts import LogConflict
from replicator.domain.identifiers import RegionId
from replicator.domain.image import Image
from replicator.domain.modes.active_active.mesh import ActivePolicy, Mesh
from replicator.domain.modes.active_active.replicate import Finished, replicate_active
from replicator.domain.modes.requests import (
    At,
    Done,
    FoundAhead,
    GetItem,
    LookAhead,
    MeshRequest,
    MeshResponse,
    Remover,
    StampRequest,
    Wait,
)
from replicator.domain.records import ChangeRecord, change_record, item_key
from replicator.domain.stamps import StampKind, held
from replicator.laboratory.memory.stamped import StampedSlot, answer_stamped

KEY = item_key(b'{"pk":{"S":"k"}}')
GENERATION = 1_700_000_000_000
REGIONS = tuple(RegionId(name) for name in ("aa", "bb", "cc", "dd", "ee"))

Meddle = Callable[["Cluster", MeshRequest], None]


def _ahead(stream: list[ChangeRecord], after: int) -> Remover:
    for record in stream[after % 10**40 :]:
        if record.new is None:
            gone = held(record.old)
            return Remover.DAEMON if gone is not None and gone.kind is StampKind.MARK else Remover.USER
    return Remover.UNKNOWN


@dataclass
class Cluster:
    """`count` regions that hold one key; `meddle` is called before every request, and may do what users do."""

    count: int = 2
    policy: ActivePolicy = field(default_factory=lambda: ActivePolicy(waits=0))
    slots: dict[RegionId, StampedSlot] = field(default_factory=dict)
    streams: dict[RegionId, list[ChangeRecord]] = field(default_factory=dict)
    asked: list[MeshRequest] = field(default_factory=list)
    logged: list[LogConflict] = field(default_factory=list)
    finished: list[Finished] = field(default_factory=list)
    meddle: Meddle | None = None

    def __post_init__(self) -> None:
        self.names = REGIONS[: self.count]
        self.slots = dict.fromkeys(self.names, StampedSlot())
        self.streams = {name: [] for name in self.names}
        self._nonces = map("{:08d}".format, count())
        self._positions = dict.fromkeys(self.names, 0)

    def item(self, region: str) -> Image | None:
        return self.slots[RegionId(region)].item

    def write(self, region: str, new: Image | None, second: int, *, ttl: bool = False) -> ChangeRecord | None:
        """A user's write: what stands there becomes `new`."""
        name = RegionId(region)
        return self._emit(name, self.slots[name]._replace(item=new), second, ttl=ttl)

    def _emit(self, name: RegionId, slot: StampedSlot, second: float, *, ttl: bool = False) -> ChangeRecord | None:
        old, new = self.slots[name].item, slot.item
        self.slots[name] = slot
        if old == new:
            return None
        event = "REMOVE" if new is None else "INSERT" if old is None else "MODIFY"
        record = change_record(
            event=event,
            key=KEY.wire,
            old=None if old is None else old.wire,
            new=None if new is None else new.wire,
            sequence=str(len(self.streams[name]) + 1),
            created_at=second,
            by_ttl=ttl,
        )
        self.streams[name].append(record)
        return record

    def mesh(self, region: str) -> Mesh:
        return Mesh(RegionId(region), tuple(name for name in self.names if name != region), GENERATION, self.policy)

    def run(self, region: str, record: ChangeRecord) -> list[MeshRequest]:
        """One record to its end; returns what was asked."""
        first = len(self.asked)
        steps = replicate_active(record, self.mesh(region))
        try:
            request = next(steps)
            while True:
                self.asked.append(request)
                if self.meddle is not None:
                    self.meddle(self, request)
                request = steps.send(self._answer(RegionId(region), request))
        except StopIteration as end:
            self.finished.append(end.value)
        return self.asked[first:]

    def _answer(self, home: RegionId, request: MeshRequest) -> MeshResponse:
        match request:
            case At(region, inner):
                assert isinstance(inner, GetItem | StampRequest)
                slot, response = answer_stamped(self.slots[region], inner, next(self._nonces), self.policy.attribute)
                self._emit(region, slot, 0)
                return response
            case LookAhead(_, after):
                return FoundAhead(_ahead(self.streams[home], after))
            case LogConflict():
                self.logged.append(request)
                return Done()
            case Wait():
                return Done()

    def next_record(self, region: str) -> list[MeshRequest]:
        """The next record of a region's stream."""
        name = RegionId(region)
        record = self.streams[name][self._positions[name]]
        self._positions[name] += 1
        return self.run(region, record)

    def position(self, region: str) -> int:
        """How many records of a region were processed in order."""
        return self._positions[RegionId(region)]

    def settle(self) -> None:
        """Process everything, region by region, until nothing is left."""
        while any(self._positions[name] < len(self.streams[name]) for name in self.names):
            for name in self.names:
                while self._positions[name] < len(self.streams[name]):
                    self.next_record(name)

    def writes(self, *kinds: type[object]) -> dict[str, int]:
        """Requests of these kinds by region."""
        counts = dict.fromkeys(map(str, self.names), 0)
        for request in self.asked:
            if isinstance(request, At) and isinstance(request.request, kinds):
                counts[request.region] += 1
        return counts
