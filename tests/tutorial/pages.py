"""What a page of the documentation gives to be typed: files to write, commands that run, and commands that are checked.

A fence says which: `console` has commands behind `$ ` that a test runs as they stand, and lines of what they print;
`sh no-run` has commands that need a cluster, an account or root, and are checked only; a language and a name, such as
`yaml replicator.yaml`, is a file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(r"^```(\w+)?([^\n`]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CONTINUED = re.compile(r"\\\n\s*")


@dataclass(frozen=True)
class Page:
    """`shown`: lines that the page says are printed. `unrun`: the blocks whose commands are checked only."""

    files: dict[str, str]
    commands: list[str]
    shown: list[str]
    unrun: list[str]

    @classmethod
    def read(cls, path: Path) -> Page:
        """The page at this path."""
        files, lines, unrun = {}, [], []
        for language, info, text in _FENCE.findall(path.read_text()):
            words = info.split()
            if language == "console":
                lines += _CONTINUED.sub("", text).splitlines()
            elif language == "sh" and words == ["no-run"]:
                unrun.append(text)
            elif language in {"yaml", "json"} and words:
                files[words[0]] = text
            elif language == "sh" or words:
                raise ValueError(f"{path.name}: a fence {language} {info.strip()!r} says neither")
        commands = [line[2:] for line in lines if line.startswith("$ ")]
        return cls(files, commands, [line for line in lines if not line.startswith("$ ")], unrun)
