"""Write `commands.md` from the program, and what of `sizing.md` is computed; `--check`: exit with 1 when either is old.

Each command stands there as its `--help` shows it on a terminal of 80 columns.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from replicator.cli.commands import app

sys.path.insert(0, str(Path(__file__).parents[1]))
from docs.sizing import PARTS

_FILE = Path(__file__).with_name("commands.md")
_OUTPUT = _FILE.with_name("output.json")
_SIZING = _FILE.with_name("sizing.md")
_WIDTH = 80
_MOST_LINES = 27
_HEAD = """\
# Commands

Every command with its options, as `--help` shows it on a terminal of {width} columns; `make schema` writes this page
from the program. What some of them print is of a group that ran once, with a loss, parked keys and a conflict
([how](questions.md)); [Operations](operations.md) says when they are needed.

What all have in common: `--config` may stand before the command too, `--json` prints one JSON document, also of an
error, and a failure is one sentence on standard error that says what, where, why and what to do. They end with

| exit code | meaning |
|---|---|
| 0 | done; of `status`, `check`, `health`, `verify`: and nothing is wrong |
| 1 | something is wrong, differs, or is a fault of the program |
| 2 | the command line makes no sense |
| 69 | a server that is needed does not answer, so that nothing can be known |
| 75 | `run`: a drain took longer than `drain`; what was not durable is read again |
| 78 | the configuration, or the world that it describes, has to be changed first |
| 130 | ended by Ctrl-C |

| command | |
|---|---|
{rows}
"""


def main() -> int:
    """Write, or compare; returns the exit code."""
    code = 0
    for file, text in ((_FILE, page()), (_SIZING, sizing(_SIZING.read_text()))):
        if "--check" not in sys.argv[1:]:
            file.write_text(text)
        elif not file.is_file() or file.read_text() != text:
            sys.stderr.write(f"{file} is stale: run `make schema` and commit the result.\n")
            code = 1
    return code


def sizing(text: str) -> str:
    """The page about sizes, with what is computed as it is now."""
    for name, made in PARTS.items():
        begin, end = f"<!-- {name}: written by `make schema` -->\n", f"<!-- end of {name} -->\n"
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}\n{made()}\n{end}{rest.partition(end)[2]}"
    return text


def page() -> str:
    """The page as the program has it now."""
    shown = [(name, command) for name, command in _leaves("replicator", get_command(app)) if not command.hidden]
    rows = "\n".join(f"| [`{name}`](#{_anchor(name)}) | {_about(command)} |" for name, command in shown)
    examples = json.loads(_OUTPUT.read_text()) if _OUTPUT.is_file() else {}
    parts = [
        f"## {name}\n\n```text\n{_help(name, command)}\n```\n{_example(examples, name)}" for name, command in shown
    ]
    return "\n".join([_HEAD.format(width=_WIDTH, rows=rows), *parts])


def _example(examples: dict[str, str], name: str) -> str:
    """What the command printed once, on a terminal of the same width."""
    found = examples.get(name.partition(" ")[2])
    if found is None:
        return ""
    lines = found.splitlines()
    left_out = [f"... ({len(lines) - _MOST_LINES} more)"] if len(lines) > _MOST_LINES else []
    return "\n".join(["\nFor example:\n\n```text", *lines[:_MOST_LINES], *left_out, "```\n"])


def _leaves(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    inner = getattr(command, "commands", None)
    if inner is None or command.invoke_without_command:
        yield name, command
    for each, command_inside in (inner or {}).items():
        yield from _leaves(f"{name} {each}", command_inside)


def _anchor(name: str) -> str:
    return name.replace(" ", "-")


def _about(command: Any) -> str:
    first = re.split(r"\n\s*\n", command.help or "")[0]
    return " ".join(first.split()).replace("|", r"\|")


def _help(name: str, command: Any) -> str:
    widths = {"terminal_width": _WIDTH, "max_content_width": _WIDTH}
    settings = {**widths, "help_option_names": ["-h", "--help"], "resilient_parsing": True}
    with command.make_context(name, [], **settings) as context:
        text: str = command.get_help(context)
    return "\n".join(line.rstrip() for line in text.splitlines())


if __name__ == "__main__":
    sys.exit(main())
