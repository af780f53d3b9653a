"""Modules that the documentation names exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
_MODULE = re.compile(r"[\w./*-]+/[\w*-]+\.py\b")


def _named(page: Path) -> list[str]:
    return _MODULE.findall(page.read_text())


def _found(path: str) -> Iterator[Path]:
    for start in (ROOT, ROOT / "replicator"):
        yield from start.glob(path)


def test_the_pages_that_lead_to_code_name_modules() -> None:
    assert "domain/shards/assignment.py" in _named(ROOT / "docs" / "architecture.md")
    assert "tests/production/table.py" in _named(ROOT / "docs" / "failures.md")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_module_that_a_page_names_exists(page: Path) -> None:
    assert [path for path in _named(page) if not any(_found(path))] == []
