"""docs/choosing.md: what it recommends is valid, and what it calls refused is, for the reason that it gives."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from replicator.domain.errors import ReplicatorError
from replicator.settings import ENV_PREFIX
from replicator.settings.loading import load
from tests.tutorial.pages import Page

FILES = Page.read(Path(__file__).parents[2] / "docs" / "choosing.md").files
REASONS = {
    "refused-two-writers.yaml": "a source cannot be a replica",
    "refused-without-a-version.yaml": "`rules[0].version` is missing",
    "refused-filter.yaml": "no attribute of primary_key",
    "refused-transform.yaml": "in a mesh every region is the source of the others",
    "refused-refresh.yaml": "allows only invalidate",
    "refused-events.yaml": "marks nothing that it writes",
}


@pytest.fixture(autouse=True)
def _nothing_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in [name for name in os.environ if name.startswith(ENV_PREFIX)]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv(f"{ENV_PREFIX}SECRETS_DIR", str(tmp_path))


def test_the_page_has_a_configuration_for_each_end_of_the_tree() -> None:
    assert {"ordered.yaml", "apart.yaml", "versioned.yaml", "active-active.yaml", *REASONS} == set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_a_configuration_is_what_the_page_calls_it(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_text(FILES[name])
    if name not in REASONS:
        assert load(file).rules[0].mode == (name.removesuffix(".yaml") if name != "apart.yaml" else "ordered")
        return
    with pytest.raises(ReplicatorError) as caught:
        load(file)
    assert REASONS[name] in caught.value.sentence
