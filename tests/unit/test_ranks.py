from __future__ import annotations

import itertools
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given

from replicator.domain.image import LARGEST_KEPT, Image, content_hash
from replicator.domain.modes.requests import VersionAtMost, VersionIs
from replicator.domain.modes.versioned.ranks import LOWEST, Rank, VersionAttribute, VersionType, rank_of, rank_of_delete
from replicator.laboratory.memory.versioned import holds_versioned
from tests.unit.strategies import Typed, image, numbers, text

NUMBER = VersionAttribute("ver")
STRING = VersionAttribute("ver", VersionType.STRING)
TIME = VersionAttribute("ver", VersionType.TIME)


def held(version: Typed | None, **attributes: Typed) -> Image:
    return image({"pk": {"S": "k"}, **attributes, **({} if version is None else {"ver": version})})


def number(value: str) -> str:
    return NUMBER.of(held({"N": value}))


# -- order ---------------------------------------------------------------------------------------------------------


@given(numbers(), numbers())
def test_versions_of_numbers_sort_by_value_with_all_their_digits(one: str, other: str) -> None:
    left, right = Fraction(Decimal(one)), Fraction(Decimal(other))
    assert (number(one) < number(other)) == (left < right)
    assert (number(one) == number(other)) == (left == right)


def test_neighbours_that_a_float_cannot_tell_apart_stay_apart() -> None:
    big = 2**53
    rising = [
        f"-{big + 1}",
        f"-{big}",
        "-1.21",
        "-1.2",
        "-1E-130",
        "0",
        "1E-130",
        "1.2",
        "1.21",
        str(big),
        str(big + 1),
    ]
    versions = [number(value) for value in [*rising, "1E+125"]]
    assert versions == sorted(set(versions))
    assert min(versions) > LOWEST


@given(numbers())
def test_a_number_comes_back_with_its_value(value: str) -> None:
    back = NUMBER.at_most(number(value)).value
    assert back is not None
    assert Decimal(back) == Decimal(value)
    assert holds_versioned(NUMBER.at_most(number(value)), held({"N": value}))


@given(text, text)
def test_versions_of_strings_sort_by_their_bytes_and_come_back(one: str, other: str) -> None:
    versions = [STRING.of(held({"S": value})) for value in (one, other)]
    assert (versions[0].encode() < versions[1].encode()) == (one.encode() < other.encode())
    assert STRING.at_most(versions[0]).value == one
    assert min(versions) > LOWEST


def test_behind_equal_versions_a_delete_stands_above_every_content() -> None:
    version = {"N": "1.0"}
    one, other = held(version, a={"S": "x"}), held({"N": "1"}, a={"S": "y"})
    ranks = [rank_of(NUMBER, one), rank_of(NUMBER, other)]
    assert ranks[0] != ranks[1]
    assert rank_of(NUMBER, held({"N": "1"}, a={"S": "x"})) == ranks[0], "1.0 and 1 are one content"
    assert max(ranks) < rank_of_delete(NUMBER, one) == rank_of_delete(NUMBER, other)
    assert rank_of_delete(NUMBER, one) < rank_of(NUMBER, held({"N": "1.1"}))


def test_an_image_too_large_to_be_kept_is_ranked_by_version_and_content_as_others_are() -> None:
    long: Typed = {"S": "x" * LARGEST_KEPT}
    rank = rank_of(NUMBER, held({"N": "1"}, long=long, n={"N": "2"}))
    assert rank == Rank(number("1"), deleted=False, content=content_hash(held({"N": "1"}, long=long, n={"N": "2"})))
    assert rank_of(NUMBER, held({"N": "1.0"}, n={"N": "2.0"}, long=long)) == rank, "one content, however it is spelled"
    assert rank_of(NUMBER, held({"N": "1"}, long=long, n={"N": "3"})) != rank
    assert rank_of(NUMBER, held({"N": "2"}, long=long, n={"N": "2"})) > rank


# -- what is no version --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("typed", [None, {"S": "1"}, {"BOOL": True}, {"L": []}, {"NULL": True}, {"NS": ["1"]}])
def test_a_number_that_is_missing_or_of_another_type_is_the_lowest(typed: Typed | None) -> None:
    assert NUMBER.of(held(typed)) == LOWEST


TIMES = {
    "2026-07-01T12:00:00Z": True,
    "2026-07-01T12:00:00.123Z": True,
    "2026-07-01T12:00:00.123456Z": True,
    "2026-07-01T12:00:00.123456789Z": True,
    "2026-07-01T12:00:00.5Z": False,
    "2026-07-01T12:00:00.12345Z": False,
    "2026-07-01T12:00:00": False,
    "2026-07-01T12:00:00+02:00": False,
    "2026-7-1T12:00:00Z": False,
    "2026-07-01 12:00:00Z": False,
    "tomorrow": False,
    "": False,
}


@pytest.mark.parametrize(("written", "valid"), TIMES.items())
def test_a_time_of_no_fixed_number_of_digits_is_the_lowest(written: str, valid: bool) -> None:
    assert (TIME.of(held({"S": written})) != LOWEST) == valid


def test_a_width_lets_only_texts_of_that_length_be_versions() -> None:
    ulid = VersionAttribute("ver", VersionType.STRING, width=3)
    milliseconds = VersionAttribute("ver", VersionType.TIME, width=24)
    found = [ulid.of(held({"S": written})) == LOWEST for written in ("ab", "abc", "abcd")]
    assert found == [True, False, True]
    assert milliseconds.of(held({"S": "2026-07-01T12:00:00Z"})) == LOWEST
    assert milliseconds.of(held({"S": "2026-07-01T12:00:00.000Z"})) != LOWEST


# -- conditions and words ------------------------------------------------------------------------------------------


def test_conditions_name_the_attribute_and_what_was_seen() -> None:
    assert NUMBER.exactly(held({"S": "x"})) == VersionIs("ver", b'{"S":"x"}')
    assert NUMBER.exactly(held(None)) == VersionIs("ver", None)
    assert NUMBER.at_most(LOWEST) == VersionAtMost("ver", "N", None)
    assert NUMBER.at_most(number("-12.5")) == VersionAtMost("ver", "N", "-12.5")
    assert NUMBER.at_most(number("0.0")) == VersionAtMost("ver", "N", "0")
    assert NUMBER.at_most(number("1E+125")) == VersionAtMost("ver", "N", "1E+125")
    assert TIME.at_most(TIME.of(held({"S": "2026-07-01T12:00:00Z"}))).value == "2026-07-01T12:00:00Z"


def test_a_rank_is_shown_by_version_kind_and_the_beginning_of_its_content() -> None:
    assert rank_of_delete(NUMBER, held({"N": "17"})).shown == "17!D"
    assert rank_of_delete(NUMBER, held(None)).shown == "-!D"
    shown = rank_of(STRING, held({"S": "v1"})).shown
    assert shown == f"v1!P!{rank_of(STRING, held({'S': 'v1'})).content[:16]}"


def test_ranks_compare_by_version_then_delete_then_content() -> None:
    ranks = [
        Rank(version, deleted, content)
        for version, deleted, content in itertools.product("12", [False, True], ["a", "b"])
    ]
    assert ranks == sorted(ranks)
