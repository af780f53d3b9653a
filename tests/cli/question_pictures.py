"""Write docs/questions.md, its pictures, and docs/output.json: what commands and console answer, of a daemon that runs.

`python -m tests.cli.question_pictures`. Needs chromium and what requirements/browser.txt pins.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tests.cli.console_pictures import eventful_world, traffic
from tests.cli.daemons import wait_until
from tests.cli.questions import IMAGES, OUTPUT, PAGE, QUESTIONS, Question
from tests.cli.served import TOKENS, Served
from tests.incidents.scenes import on_terminal

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

_BEGIN, _END = "<!-- made by `python -m tests.cli.question_pictures` -->\n", "<!-- end of what it makes -->\n"
_WIDTH, _HEIGHT = 900, 700
_NAMES = {"gaps": "Gaps and jobs"}


def main() -> int:
    """Returns the exit code."""
    import playwright.sync_api  # noqa: F401 - its lack is said at once

    IMAGES.mkdir(exist_ok=True)
    with eventful_world() as served:
        served.world.put("eu", "orders", pk={"S": "b"}, sk={"N": "7"}, text={"S": "of a foreign writer"})
        wait_until(lambda: served.ask("/jobs")[1]["jobs"] == [], "the first comparison goes on")
        with traffic(served):
            sections = [_section(each, _screen(each.command, served)) for each in QUESTIONS]
            _photograph(served)
            screens = {" ".join(name): _screen(words, served) for name, words in _examples(served)}
    OUTPUT.write_text(json.dumps(screens, indent=1, ensure_ascii=False) + "\n")
    before, rest = PAGE.read_text().split(_BEGIN)
    PAGE.write_text(before + _BEGIN + "\n" + "\n".join(sections) + _END + rest.split(_END)[1])
    return 0


def _examples(served: Served) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Commands that only look, by their names, with what they are given here."""
    key = "pk=b, sk=7"
    for name in ("status", "check", "rules", "caches", "audit"):
        yield (name,), (name,)
    for name in ("conflicts", "gaps", "leases", "parked", "jobs"):
        yield (name, "list"), (name, "list", *(["--all"] if name == "jobs" else []))
    yield ("conflicts", "show"), ("conflicts", "show", served.conflict["id"][:12])
    yield ("parked", "show"), ("parked", "show", served.row["row"])
    yield ("inspect",), ("inspect", "orders", key)
    yield ("verify",), ("verify", "orders", "--key", key)
    yield ("bootstrap",), ("bootstrap", "orders", "--dry-run")
    yield ("init",), ("init", "--dry-run")


def _screen(words: Sequence[str], served: Served) -> str:
    replicator = str(Path(sys.executable).with_name("replicator"))
    code, output = on_terminal([replicator, *words], served.world.environment)
    output = re.sub(r"file /\S+", lambda found: "file replicator.yaml".ljust(len(found[0])), output)
    lines = "\n".join(line.rstrip() for line in output.rstrip().splitlines())
    return f"$ replicator {shlex.join(words)}\n{lines}\n(exit code {code})"


def _section(question: Question, screen: str) -> str:
    light, dark = (question.picture(scheme).relative_to(PAGE.parent) for scheme in ("light", "dark"))
    alt = f"The console's answer: {question.part}"
    picture = (
        f'<picture>\n  <source media="(prefers-color-scheme: dark)" srcset="{dark}">\n'
        f'  <img src="{light}" alt="{alt}" width="{_WIDTH}">\n</picture>'
    )
    where = f"In the console: *{_NAMES.get(question.page, question.page.capitalize())}*."
    return f"## {question.title}\n\n{question.about}\n\n```text\n{screen}\n```\n\n{where}\n\n{picture}\n"


def _photograph(served: Served) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for scheme in ("light", "dark"):
            page = browser.new_page(viewport={"width": _WIDTH, "height": _HEIGHT}, color_scheme=scheme)
            page.goto(f"http://127.0.0.1:{served.daemon.port}/console/")
            page.get_by_role("button", name="Enter a token").click()
            page.get_by_role("dialog").get_by_label("Token").fill(TOKENS["alice"])
            page.get_by_role("button", name="Use it").click()
            for _ in range(8):
                with page.expect_response("**/api/v1/status"):
                    pass
            for question in QUESTIONS:
                page.evaluate(f"location.hash = '#/{question.page}'")
                page.wait_for_selector("main section")
                page.wait_for_function("document.querySelector('#said').textContent === ''")
                _part(page, question).screenshot(path=question.picture(scheme))
        browser.close()


def _part(page: Page, question: Question) -> Locator:
    if question.page in {"conflicts", "parked"}:
        page.locator("tbody button").first.click()
        return page.locator("main")
    return page.locator("main section", has=page.get_by_role("heading", name=question.part)).first


if __name__ == "__main__":
    sys.exit(main())
