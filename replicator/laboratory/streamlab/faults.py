"""Faults of the endpoint: throttles, errors, slow answers, connections that break before or after the work was done.

Invariant: without a fault nothing is drawn, so the same seed and the same calls give the same faults.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Final, Literal

import msgspec

from replicator.laboratory.streamlab.refusals import ServiceError

Kind = Literal["throttle", "error", "slow", "drop", "drop_after", "truncate"]

_CODES: Final = {
    "throttle": ("ProvisionedThroughputExceededException", 400),
    "error": ("InternalServerError", 500),
}


class Fault(msgspec.Struct, forbid_unknown_fields=True):
    """A fault and the calls that it strikes. `rate`: share of the calls; `times`: then it is over (None: never).

    `operations`: names of API operations, none means all. `table`, `region`, `contains` (text of the request's body):
    only such calls. `code` and `status` replace those of a throttle or an error.
    """

    kind: Kind
    operations: tuple[str, ...] = ()
    rate: float = 1.0
    times: int | None = None
    seconds: float = 1.0
    code: str | None = None
    status: int | None = None
    table: str | None = None
    region: str | None = None
    contains: str | None = None

    def strikes(self, operation: str, region: str, body: bytes) -> bool:
        """Whether a call is one of those."""
        return (
            (not self.operations or operation in self.operations)
            and (self.region is None or self.region == region)
            and (self.contains is None or self.contains.encode() in body)
            and (self.table is None or f'"{self.table}"'.encode() in body or f":table/{self.table}/".encode() in body)
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """What happens to one call. `refusal`: code and status of an error given instead of an answer."""

    seconds: float = 0.0
    refusal: tuple[str, int] | None = None
    drop: bool = False
    drop_after: bool = False
    truncate: bool = False

    def check(self) -> None:
        """Raise the refusal, if there is one."""
        if self.refusal is not None:
            code, status = self.refusal
            raise ServiceError(code, "The stream laboratory was asked to refuse this.", status)


CLEAN: Final = Verdict()


@dataclass(slots=True)
class Faults:
    """The faults that are at work."""

    random: Random
    active: list[Fault] = field(default_factory=list)

    def draw(self, operation: str, region: str, body: bytes) -> Verdict:
        """What strikes this call."""
        if not self.active:
            return CLEAN
        struck = [fault for fault in self.active if fault.strikes(operation, region, body) and self._chance(fault)]
        for fault in struck:
            if fault.times is not None:
                fault.times -= 1
        self.active = [fault for fault in self.active if fault.times is None or fault.times > 0]
        kinds = {fault.kind: fault for fault in struck}
        refusing = kinds.get("throttle") or kinds.get("error")
        return Verdict(
            seconds=kinds["slow"].seconds if "slow" in kinds else 0.0,
            refusal=None if refusing is None else _refusal(refusing),
            drop="drop" in kinds,
            drop_after="drop_after" in kinds,
            truncate="truncate" in kinds,
        )

    def _chance(self, fault: Fault) -> bool:
        return fault.rate >= 1 or self.random.random() < fault.rate


def _refusal(fault: Fault) -> tuple[str, int]:
    code, status = _CODES[fault.kind]
    return fault.code or code, fault.status or status
