"""How many items a page of a job has: by what they cost and by what a segment may take."""

from __future__ import annotations

from replicator.domain.copying.page_sizes import PAGE_SECONDS, page_items


def test_before_anything_is_known_a_page_has_what_a_second_pays_for() -> None:
    assert page_items([(3000, 0), (5, 0)], 0) == 5
    assert page_items([(0.2, 0)], 0) == 1, "a page has an item at least"


def test_a_page_lasts_a_few_seconds_at_what_its_items_cost() -> None:
    assert page_items([(3000, 10), (5, 80)], 20) == 5 * PAGE_SECONDS / 4
    assert page_items([(5, 8000)], 10) == 1, "large items go one by one"


def test_a_budget_that_is_not_used_or_that_is_large_bounds_no_page() -> None:
    assert page_items([(5, 0), (50_000, 10)], 10) is None
    assert page_items([(5, 0)], 10) is None
    assert page_items([], 0) is None
    assert page_items([(1_000_000, 0)], 0) is None
