"""Results of deeds as they are stored."""

from __future__ import annotations

from replicator.domain.audit import Result


def test_a_result_of_a_newer_program_is_one_that_began() -> None:
    assert [Result.named(result.value) for result in Result] == list(Result)
    assert Result.named("of tomorrow") is Result.BEGUN
