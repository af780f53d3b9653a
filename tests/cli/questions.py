"""The six questions of an operator, each with the command and the place in the console that answer it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "questions.md"
IMAGES = PAGE.parent / "images"
OUTPUT = PAGE.with_name("output.json")
"""What commands print, by their names, which docs/commands.md shows."""


@dataclass(frozen=True)
class Question:
    """`answer`: what the command prints in any case, a regular expression. `part`: heading of the console's answer."""

    title: str
    command: tuple[str, ...]
    answer: str
    page: str
    part: str
    about: str

    def picture(self, scheme: str) -> Path:
        """Where the console's answer is, light or dark."""
        return IMAGES / f"{self.page}-{self.part.lower().replace(' ', '-')}-{scheme}.png"


QUESTIONS = (
    Question(
        "Is all well, and what helps?",
        ("status",),
        r"^(healthy|\d+ problems?): ",
        "overview",
        "Problems",
        """\
The first line is the verdict; each problem has the command that helps. The exit code says the same: 0, 1, or 69 when it
cannot be known. In the console the verdict stands on every page.""",
    ),
    Question(
        "How far behind is each replica?",
        ("status",),
        r"\blag\b",
        "overview",
        "Rules and their targets",
        """\
The table below the problems: `lag` is how old the oldest change is that a target lacks, `left` how long until that
leaves the stream. `--watch` repeats it, with a line of how the lag went; a [canary](operations.md#canary) measures the
way from end to end.""",
    ),
    Question(
        "What is stuck, where, and why?",
        ("status", "--problems"),
        r"^(healthy|\d+ problems?): ",
        "parked",
        "Parked",
        """\
Every problem with its reason, what to do, and the heading of the [runbook](operations.md#runbook). `replicator inspect
RULE KEY` tells the same of one item.""",
    ),
    Question(
        "What was overwritten, and can I bring it back?",
        ("conflicts", "list"),
        r"orders",
        "conflicts",
        "Conflicts",
        """\
Both images are kept. `replicator conflicts promote ID` restores the one that lost, as a new write; in the console
*Promote* first shows what it would write, and what it would replace.""",
    ),
    Question(
        "What was lost, and what may be next?",
        ("gaps", "list"),
        r"records would be lost in|loses records now|unknown|nothing waits",
        "gaps",
        "Gaps that are not acknowledged",
        """\
Gaps that are neither repaired nor acknowledged (`--all`: every one), and when the next records would be lost.""",
    ),
    Question(
        "Is the replica identical?",
        ("verify", "orders"),
        r"\d compared",
        "gaps",
        "Jobs over whole tables",
        """\
Every item of every table of the rule is compared, twice, so that what is on its way does not count. Exit code 1:
something differs. `replicator repair RULE` corrects it.""",
    ),
)
