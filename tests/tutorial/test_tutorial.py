"""The tutorial runs as it stands: every command of the page, in its order, in one shell, from an empty directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tutorial.pages import Page
from tests.tutorial.running import run

PAGE = Path(__file__).parents[2] / "docs" / "tutorial.md"
pytestmark = [pytest.mark.servers, pytest.mark.long]


def test_every_command_of_the_tutorial_does_what_the_page_says(tmp_path: Path) -> None:
    page = Page.read(PAGE)
    assert len(page.commands) > 25
    run(page, tmp_path)
