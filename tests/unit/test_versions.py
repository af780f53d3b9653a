from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.domain.errors import WorldMismatch
from replicator.domain.versions import MAX_EPOCH, UNSTAMPED, generation_of, is_ordered_version, ordered_version


def _mixed(limit: int) -> st.SearchStrategy[int]:
    """Small numbers often, so that equal fields and carries between widths are met."""
    return st.one_of(st.integers(0, 11), st.integers(0, limit))


parts = st.tuples(_mixed(MAX_EPOCH), _mixed(10**13 - 1), _mixed(10**40 - 1))


@given(parts, parts)
def test_versions_sort_as_text_and_as_bytes_like_their_parts(
    left: tuple[int, int, int], right: tuple[int, int, int]
) -> None:
    one, two = ordered_version(*left), ordered_version(*right)
    assert (one < two) == (left < right)
    assert (one.encode() < two.encode()) == (left < right)
    assert (one == two) == (left == right)


@given(parts)
def test_every_version_is_recognised_and_not_below_an_unstamped_item(of: tuple[int, int, int]) -> None:
    version = ordered_version(*of)
    assert is_ordered_version(version)
    assert len(version) == len(UNSTAMPED)
    assert version >= UNSTAMPED


@pytest.mark.parametrize(
    "of", [(-1, 0, 0), (0, -1, 0), (0, 0, -1), (1000, 0, 0), (0, 10**13, 0), (0, 0, 10**40), (-1, 10**13, 1)]
)
def test_parts_that_do_not_fit_their_field_are_refused(of: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        ordered_version(*of)


@pytest.mark.parametrize(
    "text", ["", "1", "1" * 55, "1" * 57, "x" * 56, "\N{ARABIC-INDIC DIGIT ONE}" * 56, "1" * 55 + "!"]
)
def test_other_stamps_are_no_versions(text: str) -> None:
    assert not is_ordered_version(text)


@pytest.mark.parametrize(
    ("label", "milliseconds"),
    [
        ("1970-01-01T00:00:00.000", 0),
        ("2024-05-06T07:08:09.123", 1_714_979_289_123),
        ("2024-05-06T07:08:09.123456", 1_714_979_289_123),
        ("2024-05-06T07:08:09Z", 1_714_979_289_000),
        ("2024-05-06T09:08:09+02:00", 1_714_979_289_000),
    ],
)
def test_a_generation_is_the_label_in_milliseconds(label: str, milliseconds: int) -> None:
    assert generation_of(label) == milliseconds


@pytest.mark.parametrize("label", ["", "yesterday", "17149", "2024-13-01T00:00:00"])
def test_a_label_that_is_no_time_is_refused_by_its_name(label: str) -> None:
    with pytest.raises(WorldMismatch, match="is not an ISO time"):
        generation_of(label)


@pytest.mark.parametrize("label", ["1969-12-31T23:59:59.999", "9999-01-01T00:00:00"])
def test_a_label_outside_the_years_of_a_version_is_refused(label: str) -> None:
    with pytest.raises(WorldMismatch, match="outside the range of years"):
        generation_of(label)


@given(st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2200, 1, 1)), st.integers(1, 10**9))  # noqa: DTZ001
def test_a_stream_created_later_has_a_higher_generation(created: datetime, later_ms: int) -> None:
    later = created + timedelta(milliseconds=later_ms)
    assert generation_of(later.isoformat()) - generation_of(created.isoformat()) == later_ms
