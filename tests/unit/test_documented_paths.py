"""Modules that the documentation names exist, links lead somewhere, and tables are tables."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
GUIDES = [*PAGES, *ROOT.glob("*.md"), *(ROOT / "helm").rglob("*.md"), *(ROOT / "config").rglob("*.md")]
GUIDES += [*(ROOT / "examples").rglob("*.md"), *(ROOT / "lambda").rglob("*.md"), *(ROOT / "benchmarks").rglob("*.md")]
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)|^\[[^\]]+\]: (\S+)$", re.MULTILINE)
_CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
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


@cache
def _headings(page: Path) -> set[str]:
    """The anchors of a page, made as GitHub makes them."""
    found: set[str] = set()
    for title in re.findall(r"^#+ (.*)$", _CODE.sub("", page.read_text()), re.MULTILINE):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title)
        anchor = re.sub(r"[^\w\- ]", "", shown.lower()).strip().replace(" ", "-")
        again = (f"{anchor}-{n}" for n in itertools.count(1))
        found.add(anchor if anchor not in found else next(each for each in again if each not in found))
    return found


def _dead_links(page: Path) -> Iterator[str]:
    for parts in _LINK.findall(_CODE.sub("", page.read_text())):
        link = "".join(parts)
        path, _, anchor = link.partition("#")
        if "://" in link or link.startswith("mailto:"):
            continue
        there = (page.parent / path).resolve() if path else page
        if not there.exists() or (anchor and anchor not in _headings(there)):
            yield link


@pytest.mark.parametrize("page", dict.fromkeys(GUIDES), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    assert list(_dead_links(page)) == []


def test_a_dead_link_is_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A `b`, c\n[here](#a-b-c) [no](#nothing) [gone](gone.md) [far](https://example.com/x)\n[x]: away.md\n"
    )
    assert list(_dead_links(page)) == ["#nothing", "gone.md", "away.md"]


def _torn_rows(page: Path) -> Iterator[str]:
    """Rows that a reader sees as text with bars, or with other columns than their table has."""
    columns = 0
    lines = [*_CODE.sub("", page.read_text()).splitlines(), ""]
    for line, below in itertools.pairwise(lines):
        cells = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else 0
        begins = not columns and re.fullmatch(r"[|: -]+", below) is not None
        if cells and not begins and cells != columns:
            yield line
        else:
            columns = cells


def test_every_row_of_a_page_belongs_to_a_table() -> None:
    assert [(page.name, row) for page in dict.fromkeys(GUIDES) for row in _torn_rows(page)] == []


def test_a_torn_row_is_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("| a | b |\n|---|---|\n| `x\\|y` | 2 |\n| 3 |\n\n| 4 | 5 |\n\n```\n| x |\n```\n")
    assert list(_torn_rows(page)) == ["| 3 |", "| 4 | 5 |"]
