"""What people read stays on its line, whatever names and keys hold."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator

import pytest
import structlog

from replicator.cli.output import note, print_json, print_rows, rich_table
from replicator.domain.plain_text import on_one_line
from replicator.domain.records import ItemKey
from replicator.observability.logs import configure

NASTY = "a\nb\tc\x1b[31md\r\x9b\u2028e\u202egpj\ud800\U000e0001"
SAFE = r"a\x0ab\x09c\x1b[31md\x0d\x9b\u2028e\u202egpj\ud800\U000e0001"


@pytest.mark.parametrize("text", ["", "order:1", "ü 漢字 🙂", r"a\nb", "a b"])
def test_plain_text_stays_as_it_is(text: str) -> None:
    assert on_one_line(text) == text


def test_control_characters_are_written_as_escapes() -> None:
    assert on_one_line(NASTY) == SAFE


def test_a_key_in_a_sentence_and_a_document_for_machines_move_no_cursor_either(
    capsys: pytest.CaptureFixture[str],
) -> None:
    key = ItemKey((("pk", "S", NASTY),))
    assert key.shown == f"pk={SAFE}"
    note(f"it is {NASTY}")
    print_json({"key": NASTY, "plain": "ü 漢字 🙂"})
    said = capsys.readouterr()
    assert said.err == f"replicator: it is {SAFE}\n"
    assert all(line.isprintable() for line in said.out.splitlines())
    assert json.loads(said.out) == {"key": NASTY, "plain": "ü 漢字 🙂"}
    assert "ü 漢字 🙂" in said.out


def test_a_row_stays_on_its_line_and_in_its_columns(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows(("key", "state"), [(NASTY, "ok")])
    assert capsys.readouterr().out == f"key\tstate\n{SAFE}\tok\n"
    (cell,) = rich_table(("key",), [(NASTY,)]).columns[0].cells
    assert str(cell) == SAFE


def test_a_wide_table_has_every_cell_whole_on_a_narrow_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "dumb")
    columns = [f"column{number}:{number}" for number in range(9)]
    print_rows(columns, [["x" * 30] * 9], one_line=True, wide=True)
    header, _, row = capsys.readouterr().out.splitlines()
    assert header.split() == [column.partition(":")[0] for column in columns]
    assert row.split() == ["x" * 30] * 9


def test_a_folded_table_breaks_no_word_where_there_is_room(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "50")
    monkeypatch.setenv("TERM", "dumb")
    print_rows(
        ("rule", "mode", "sources", "caches"), [("orders", "active-active", "us:orders, eu:orders", "eu (invalidate)")]
    )
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 50
    said = " ".join(lines).split()
    assert {"active-active", "us:orders,", "eu:orders", "(invalidate)"} <= set(said)


@pytest.fixture
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


@pytest.mark.usefixtures("_logging_as_before")
@pytest.mark.parametrize("style", ["console", "json"])
def test_a_line_of_the_log_stays_one(capsys: pytest.CaptureFixture[str], style: str) -> None:
    configure("info", style)
    structlog.get_logger("replicator").warning("target_blocked", key=NASTY, reason="no")
    (line,) = capsys.readouterr().err.splitlines()
    assert "\x1b[31md" not in line
    assert "target_blocked" in line


@pytest.mark.usefixtures("_logging_as_before")
@pytest.mark.parametrize(
    ("terminal", "variable", "coloured"), [(True, "", True), (True, "1", False), (False, "", False)]
)
def test_the_log_has_colours_on_a_terminal_that_wants_them(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, terminal: bool, variable: str, coloured: bool
) -> None:
    monkeypatch.setenv("NO_COLOR", variable)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    configure("info", "console")
    structlog.get_logger("replicator").warning("target_blocked")
    assert ("\x1b[" in capsys.readouterr().err) is coloured
