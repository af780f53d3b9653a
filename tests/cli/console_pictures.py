"""Pictures of the console for the documentation, of a daemon that runs.

`python -m tests.cli.console_pictures [DIRECTORY]` takes them. Needs chromium and what requirements/browser.txt pins.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from replicator.domain.values import replace
from replicator.laboratory.servers import MiniStack, Valkey
from replicator.laboratory.streamlab import StreamLab
from tests.cli.daemons import wait_until
from tests.cli.served import TOKENS, Served, lose_something, served_world

if TYPE_CHECKING:
    from playwright.sync_api import Page

_SHAPES = ((1280, "light"), (400, "dark"))
_PAGES: dict[int, tuple[str, ...]] = {
    1280: ("overview", "item", "shards", "conflicts", "parked", "gaps", "workers", "audit"),
    400: ("overview", "conflicts"),
}
_SPLITS, _SAMPLES = 3, 8


def take(directory: Path) -> None:
    """Write one picture per page and shape."""
    with eventful_world() as served:
        _photograph(served, directory)


@contextmanager
def eventful_world() -> Iterator[Served]:
    """Servers and workers of their own, where things have happened."""
    with tempfile.TemporaryDirectory() as name:
        places = [Path(name, each) for each in ("ministack", "valkey", "lab", "world")]
        for place in places:
            place.mkdir()
        with (
            MiniStack.start(places[0]) as ministack,
            Valkey.start(places[1]) as valkey,
            StreamLab.start(places[2], ministack.endpoint_url) as lab,
            served_world(replace(ministack, endpoint_url=lab.url), valkey, places[3]) as served,
        ):
            _let_things_happen(served, lab)
            yield served


def _let_things_happen(served: Served, lab: StreamLab) -> None:
    """Let shards split while there is traffic, a loss be noted, and deeds be done."""
    for _ in range(_SPLITS):
        lab.command("split", table="orders", region="us-east-1")
    lose_something(served.world)
    served.ask("/rules/orders/pause", "alice", {"note": "index work"})
    served.ask("/rules/orders/resume", "alice", {})
    served.ask("/rules/orders/verify", "alice", {})
    wait_until(lambda: len(served.ask("/shards?all=true")[1]["shards"]) > _SPLITS, "no shard was split")


@contextmanager
def traffic(served: Served) -> Iterator[None]:
    """Write items, at times many, until the context ends."""
    over = threading.Event()

    def write() -> None:
        for number in count(100):
            served.world.put("us", "orders", pk={"S": "b"}, sk={"N": str(number)}, text={"S": "x"})
            if over.wait(0.05 if number % 200 < 100 else 0.5):
                return

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        over.set()
        writer.join()


def _photograph(served: Served, directory: Path) -> None:
    from playwright.sync_api import sync_playwright

    with traffic(served), sync_playwright() as started:
        browser = started.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for width, scheme in _SHAPES:
            page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
            page.goto(f"http://127.0.0.1:{served.daemon.port}/console/")
            page.get_by_role("button", name="Enter a token").click()
            page.get_by_role("dialog").get_by_label("Token").fill(TOKENS["alice"])
            page.get_by_role("button", name="Use it").click()
            for _ in range(_SAMPLES):
                with page.expect_response("**/api/v1/status"):
                    pass
            for name in _PAGES[width]:
                page.evaluate(f"location.hash = '#/{name}'")
                page.wait_for_selector("main section")
                _open(page, name)
                page.wait_for_function("document.querySelector('#said').textContent === ''")
                picture = directory / f"{name}-{width}-{scheme}.png"
                page.screenshot(path=picture, full_page=name not in {"shards", "workers"})
            if width == _SHAPES[0][0]:
                page.evaluate("location.hash = '#/parked'")
                page.get_by_role("button", name="Drop", exact=True).click()
                page.screenshot(path=directory / f"question-{width}-{scheme}.png")
        browser.close()


def _open(page: Page, name: str) -> None:
    """Show what there is to see on a page."""
    match name:
        case "shards":
            page.get_by_label("finished shards, too").check()
            page.wait_for_selector("svg.lineage .finished")
        case "item":
            page.get_by_label("Key").fill('{"pk":"a","sk":2}')
            page.get_by_role("button", name="Look").click()
            page.get_by_text("copies differ").wait_for()
        case "conflicts" | "parked":
            page.locator("tbody button").first.click()


if __name__ == "__main__":
    take(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/console"))
