"""Transforms as the configuration writes them."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from replicator.domain.key_mapping import KeyMapping, key_mapping
from replicator.domain.versions import RESERVED_PREFIX, STAMP
from replicator.settings.values import AttributeName, Frozen, Name

_SMALLEST, _LARGEST = 1e-130, 1e126
_MOST_WHOLE = 10**38


class MaskSettings(Frozen):
    """Attributes whose values are replaced by a keyed digest."""

    attributes: list[AttributeName] = Field(min_length=1, description="equal values have equal masks")
    hmac: Name = Field(description="one of secrets, which keys the digest (HMAC-SHA256)")


class ConstantKeySettings(Frozen):
    """A key attribute that is the same in every item."""

    constant: str = Field(min_length=1)


class TransformSettings(Frozen):
    """How items differ at a target from what the source holds; the key stays as it is."""

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
    def mapping(self) -> KeyMapping | None:
        """How the key is mapped; None: it stays."""
        return None

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
            if _is_reserved(name):
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


class ReplicaTransform(TransformSettings):
    """The same of a replica, whose key may be another one."""

    key: dict[AttributeName, str | ConstantKeySettings] | None = Field(
        default=None,
        min_length=1,
        max_length=2,
        description="the replica's key attributes, the partition key first: a text over the attributes of the source's"
        " key, such as orders#{pk} or {number:N}, or {constant: orders}",
    )

    @property
    def mapping(self) -> KeyMapping | None:
        """How the key is mapped; None: it stays."""
        if self.key is None:
            return None
        return key_mapping(
            {name: text if isinstance(text, str) else text.model_dump() for name, text in self.key.items()}
        )

    @model_validator(mode="after")
    def _key_is_shown_and_set_once(self) -> Self:
        mapping = self.mapping
        if mapping is None:
            return self
        for name in mapping.names:
            if _is_reserved(name):
                raise ValueError(f"names {name}, which is kept for replication")
        if twice := sorted({*self.rename.values(), *self.constant} & set(mapping.names)):
            raise ValueError(f"gives a value to {', '.join(twice)}, which key sets")
        if shown := sorted(mapping.sources & set(() if self.mask is None else self.mask.attributes)):
            raise ValueError(f"masks {', '.join(shown)}, and shows it in key")
        return self


def _is_reserved(name: str) -> bool:
    """Whether an attribute is replication's own."""
    return name == STAMP or name.startswith(RESERVED_PREFIX)


def _check_number(name: str, value: str | bool | float | None) -> None:  # noqa: FBT001 - a scalar of any kind
    if value is None or isinstance(value, str | bool):
        return
    fits = abs(value) < _MOST_WHOLE if isinstance(value, int) else value == 0 or _SMALLEST <= abs(value) < _LARGEST
    if not fits:
        raise ValueError(f"has a number under constant.{name} that DynamoDB cannot hold")
