from __future__ import annotations

import pytest

from replicator.domain import errors
from replicator.domain.errors import (
    Disposition,
    LeaseLost,
    NewerLayout,
    RecordsTrimmed,
    ReplicatorError,
    ShardGone,
    Throttled,
    Unreachable,
)

CLASSES = [found for found in vars(errors).values() if isinstance(found, type) and issubclass(found, ReplicatorError)]


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_says_what_happened_and_what_to_do(kind: type[ReplicatorError]) -> None:
    error = kind("Something broke.")
    assert error.sentence == f"Something broke. {kind.advice}"
    assert str(error) == "Something broke."
    assert kind.advice.endswith(".")
    assert kind.__doc__ is not None
    assert isinstance(kind.disposition, Disposition)
    assert kind.exit_code in {1, 69, 75, 78}


def test_an_error_may_bring_better_advice() -> None:
    error = Throttled("Slow down.", advice="Wait.")
    assert error.sentence == "Slow down. Wait."
    assert Throttled.advice != "Wait."


def test_what_a_service_says_without_a_full_stop_is_a_sentence_too() -> None:
    assert Throttled("Slow down", advice="Wait.").sentence == "Slow down. Wait."
    assert Throttled("Slow down").worker_sentence.startswith("Slow down. ")
    assert Throttled("Slow down (now)!", advice="Wait.").sentence == "Slow down (now)! Wait."


def test_an_error_without_advice_is_one_sentence() -> None:
    assert ReplicatorError("Broken.", advice="").sentence == "Broken."


def test_a_lost_lease_gives_the_shard_up_and_lost_records_stop_it() -> None:
    assert LeaseLost.disposition is Disposition.RELINQUISH
    assert RecordsTrimmed.disposition is Disposition.STOP
    assert issubclass(ShardGone, RecordsTrimmed)


def test_what_a_worker_does_meanwhile_is_no_advice_of_a_command_that_ends() -> None:
    error = Unreachable("Table orders got no answer.")
    assert error.worker_sentence == f"{error.sentence} The work continues by itself when it answers."
    assert "by itself" not in error.sentence
    assert Unreachable("No answer.", advice=Unreachable.advice).worker_advice == error.worker_advice
    assert Unreachable("No answer.", advice="Wait.").worker_advice == "Wait."


def test_a_row_of_a_newer_layout_is_named_with_both_layouts() -> None:
    error = NewerLayout.of("shard|s1", "side table", layout=3, known=2)
    assert "The side table holds rows of a newer replicator: shard|s1 is of layout 3" in str(error)
    assert "knows layout 2" in str(error)
