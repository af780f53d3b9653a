"""Changed copies of values and their fields, whatever makes their class."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from msgspec import Struct

from replicator.domain.modes.requests import Done
from replicator.domain.progress import Position
from replicator.domain.shards.leases import Pulse
from replicator.domain.values import field_names, replace


class Place(Struct, frozen=True):
    name: str
    number: int = 0


@dataclass(frozen=True, slots=True)
class Derived:
    name: str
    length: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "length", len(self.name))


def test_a_copy_differs_in_what_was_asked_for_alone() -> None:
    assert replace(Place("a", 1), name="b") == Place("b", 1)
    assert replace(Derived("a"), name="bcd").length == 3


@pytest.mark.parametrize("value", [Place("a"), Derived("a")])
def test_a_field_that_is_not_there_cannot_be_replaced(value: Place | Derived) -> None:
    with pytest.raises(TypeError):
        replace(value, nothing=1)  # type: ignore[call-arg]


def test_fields_are_named_in_their_order() -> None:
    assert field_names(Place("a")) == field_names(Place) == ("name", "number")
    assert field_names(Derived) == ("name", "length")
    assert field_names("text") == field_names(int) == ()


@pytest.mark.parametrize(
    ("one", "same", "other"),
    [
        (Position("1", 5.0), Position("1"), Position("2", 5.0)),
        (Done(units=1.0), Done(units=2.0), None),
        (Pulse(1, 2, "a", {}), Pulse(1, 2, "a"), Pulse(1, 3, "a")),
    ],
)
def test_what_only_accompanies_a_value_is_not_compared(one: object, same: object, other: object) -> None:
    assert one == same
    assert hash(one) == hash(same)
    assert one != other
