"""Filters as the configuration writes them: conditions on items, and what no item can fulfil."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Context, Decimal
from typing import Literal, Self

import jmespath.exceptions
from pydantic import Field, field_validator, model_validator

from replicator.domain.filter_analysis import mistakes
from replicator.settings.values import AttributeName, Frozen

_LARGEST_EXPONENT, _SMALLEST_EXPONENT, _MOST_DIGITS = 125, -130, 38
_EXACT = Context(prec=1000)


class ItemConditions(Frozen):
    """Which items are meant: all conditions must hold on an item's image."""

    key_prefix: dict[AttributeName, str] = Field(default={}, description="string key attribute: prefix")
    equals: dict[AttributeName, str | bool | int | float | None] = Field(default={}, description="attribute: scalar")
    exists: list[AttributeName] = Field(default=[], description="attributes that must be there")
    where: str | None = Field(default=None, description="JMESPath over the item as plain JSON")

    @field_validator("where")
    @classmethod
    def _can_hold(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                found = mistakes(value)
            except jmespath.exceptions.JMESPathError as error:
                raise ValueError(f"is not a JMESPath expression: {str(error).splitlines()[0]}") from error
            if found:
                raise ValueError(found[0])
        return value

    @model_validator(mode="after")
    def _conditions_agree(self) -> Self:
        _check_agreement(self.key_prefix, self.equals)
        return self


class FilterSettings(ItemConditions):
    """Which items are replicated."""

    events: list[Literal["INSERT", "MODIFY", "REMOVE"]] | None = Field(default=None, min_length=1)


class MeshFilter(Frozen):
    """Which items are replicated in a mesh: conditions on key attributes alone, so that every region decides alike."""

    key_prefix: dict[AttributeName, str] = Field(default={}, description="string key attribute: prefix")
    equals: dict[AttributeName, str | int | float] = Field(default={}, description="key attribute: value")

    @model_validator(mode="after")
    def _conditions_agree(self) -> Self:
        _check_agreement(self.key_prefix, self.equals)
        return self


def _check_agreement(prefixes: Mapping[str, str], equals: Mapping[str, object]) -> None:
    """What no item can fulfil, as far as the conditions themselves show."""
    for name, value in equals.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if is_number and not _can_be_stored(Decimal(str(value))):
            raise ValueError(f"has a number under equals.{name} that DynamoDB cannot hold, so nothing can match")
        prefix = prefixes.get(name)
        if prefix is not None and not (isinstance(value, str) and value.startswith(prefix)):
            raise ValueError(f"has under equals.{name} what key_prefix.{name} rules out, so nothing can match")


def _can_be_stored(number: Decimal) -> bool:
    if not number.is_finite():
        return False
    digits = len(number.normalize(_EXACT).as_tuple().digits)
    exponent = number.adjusted() if number else 0
    return digits <= _MOST_DIGITS and _SMALLEST_EXPONENT <= exponent <= _LARGEST_EXPONENT
