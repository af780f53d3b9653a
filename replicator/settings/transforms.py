"""Transforms as the configuration writes them."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from replicator.domain.versions import RESERVED_PREFIX, STAMP
from replicator.settings.values import AttributeName, Frozen, Name

_SMALLEST, _LARGEST = 1e-130, 1e126
_MOST_WHOLE = 10**38


class MaskSettings(Frozen):
    """Attributes whose values are replaced by a keyed digest."""

    attributes: list[AttributeName] = Field(min_length=1, description="equal values have equal masks")
    hmac: Name = Field(description="one of secrets, which keys the digest (HMAC-SHA256)")


class TransformSettings(Frozen):
    """How items differ at a target from what the source holds; the key always stays as it is."""

    project: list[AttributeName] | None = Field(
        default=None, min_length=1, description="attributes that are kept, beside the key; default: all"
    )
    drop: list[AttributeName] = Field(default=[], description="attributes that are left out")
    mask: MaskSettings | None = Field(default=None, description="attributes that are replaced by a keyed digest")
    rename: dict[AttributeName, AttributeName] = Field(default={}, description="name at the source: name at the target")
    constant: dict[AttributeName, str | bool | int | float | None] = Field(
        default={}, description="attributes that every item has at the target"
    )

    @property
    def touched(self) -> set[str]:
        """Every attribute that it takes away, changes or sets."""
        masked = set() if self.mask is None else set(self.mask.attributes)
        return {*self.drop, *masked, *self.rename, *self.rename.values(), *self.constant}

    @model_validator(mode="after")
    def _steps_agree(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("does nothing; leave it out")
        for name in sorted(self.touched):
            if name == STAMP or name.startswith(RESERVED_PREFIX):
                raise ValueError(f"names {name}, which is kept for replication")
        masked = set() if self.mask is None else set(self.mask.attributes)
        used = masked | self.rename.keys()
        for name in sorted(used):
            if name in self.drop or (self.project is not None and name not in self.project):
                raise ValueError(f"changes {name}, which is left out before")
        new = [*self.rename.values(), *self.constant]
        if twice := sorted({name for name in new if new.count(name) > 1}):
            raise ValueError(f"gives the name {', '.join(twice)} to two attributes")
        for name, value in self.constant.items():
            _check_number(name, value)
        return self


def _check_number(name: str, value: str | bool | float | None) -> None:  # noqa: FBT001 - a scalar of any kind
    if value is None or isinstance(value, str | bool):
        return
    fits = abs(value) < _MOST_WHOLE if isinstance(value, int) else value == 0 or _SMALLEST <= abs(value) < _LARGEST
    if not fits:
        raise ValueError(f"has a number under constant.{name} that DynamoDB cannot hold")
