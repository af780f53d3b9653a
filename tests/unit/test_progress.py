from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.domain.identifiers import SequenceNumber
from replicator.domain.progress import BEGINNING, END, HORIZON, Position, Window, after, earliest, parse_position


def sequence(number: int) -> SequenceNumber:
    return SequenceNumber(str(number))


@given(st.lists(st.integers(0, 10**40 - 1), unique=True, min_size=1, max_size=12), st.data())
def test_the_frontier_is_always_right_behind_the_longest_durable_prefix(
    numbers: list[int], data: st.DataObject
) -> None:
    window = Window(HORIZON)
    for number in numbers:
        window.open([(sequence(number), 0.0)])
    durable: set[int] = set()
    for number in data.draw(st.permutations(numbers)):
        before = window.frontier
        moved = window.done(sequence(number))
        durable.add(number)
        prefix = next((index for index, each in enumerate(numbers) if each not in durable), len(numbers))
        assert window.frontier == (after(sequence(numbers[prefix - 1])) if prefix else HORIZON)
        assert window.in_flight == len(numbers) - prefix
        assert moved == (window.frontier != before)
    assert window.frontier == after(sequence(numbers[-1]))


@given(st.lists(st.sampled_from(["open", "done"]), max_size=40), st.randoms(use_true_random=False))
def test_the_frontier_never_passes_a_record_in_flight_while_others_arrive(steps: list[str], dice: object) -> None:
    window = Window(after(sequence(0)))
    opened, flying = 0, []
    for step in steps:
        if step == "open":
            opened += 1
            flying.append(opened)
            window.open([(sequence(opened), 0.0)])
        elif flying:
            chosen = flying.pop(dice.randrange(len(flying)))  # type: ignore[attr-defined]
            window.done(sequence(chosen))
        assert window.frontier == after(sequence(min(flying, default=opened + 1) - 1))


def test_a_window_starts_where_it_is_told() -> None:
    window = Window(after(sequence(5)))
    assert window.frontier == Position("5")
    assert window.in_flight == 0


positions = st.one_of(st.sampled_from([HORIZON, END]), st.integers(0, 10**40 - 1).map(sequence).map(after))


@given(st.lists(positions, min_size=1))
def test_reading_resumes_at_the_position_that_covers_least(some: list[Position]) -> None:
    first = earliest(some)
    assert first in some
    assert all(other.covers(number) for other in some for number in (0, 7, 10**40) if first.covers(number))


@given(st.integers(0, 10**40 - 1), st.integers(0, 10**40 - 1))
def test_a_position_covers_exactly_the_records_up_to_its_own(at: int, number: int) -> None:
    assert after(sequence(at)).covers(number) == (number <= at)
    assert not HORIZON.covers(number)
    assert END.covers(number)


def test_sequence_numbers_compare_as_integers() -> None:
    assert earliest([after(sequence(10)), after(sequence(9))]) == after(sequence(9))
    assert after(SequenceNumber("00010")).covers(10)


def test_only_a_place_between_records_has_a_sequence_number() -> None:
    assert after(sequence(3)).sequence == "3"
    assert HORIZON.sequence is None
    assert END.sequence is None


@given(positions)
def test_a_stored_position_is_read_back(position: Position) -> None:
    assert parse_position(position.text) == position


@pytest.mark.parametrize("text", ["", "-1", "1.5", "LATEST", "trim_horizon", "\N{ARABIC-INDIC DIGIT ONE}", " 1"])
def test_a_text_that_is_no_position_is_refused(text: str) -> None:
    assert parse_position(text) is None


def test_the_beginning_comes_before_the_horizon_and_covers_nothing() -> None:
    assert earliest([HORIZON, BEGINNING, after(sequence(0)), END]) == BEGINNING
    assert not BEGINNING.covers(0)
    assert BEGINNING.sequence is None
    assert parse_position("SHARD_START") == BEGINNING


def test_the_oldest_record_that_a_frontier_has_not_passed_is_known_by_its_time() -> None:
    window = Window(HORIZON)
    assert window.oldest == 0.0
    for number, at in ((1, 10.0), (2, 20.0), (3, 30.0)):
        window.open([(SequenceNumber(str(number)), at)])
    window.done(SequenceNumber("2"))
    assert window.oldest == 10.0
    window.done(SequenceNumber("1"))
    assert window.oldest == 30.0
