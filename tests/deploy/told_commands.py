"""The commands that documentation, Makefile and Dockerfile tell."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def told_commands(*files: Path) -> list[str]:
    """The lines of these files that may be commands, each of a sequence by itself."""
    joined = re.sub(r"\\\n\s*", " ", "\n".join(file.read_text() for file in files))
    return [part.strip().removeprefix("RUN ") for part in re.split(r"\n|&&", joined)]
