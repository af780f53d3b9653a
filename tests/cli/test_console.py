"""The console in Chromium: what it shows, what it asks before a deed, and what it says when it knows nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from replicator.laboratory.servers import MiniStack, Valkey
from tests.cli.daemons import wait_until
from tests.cli.served import GAP, PLANTED, TOKENS, Served, lose_something, served_world
from tests.patience import PATIENT_SECONDS

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

playwright = pytest.importorskip("playwright.sync_api", reason="requirements/browser.txt is not installed")
CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.servers,
    pytest.mark.long,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]

HOSTILE = '"><img src=x onerror="window.hacked=1"><script>window.hacked=1</script>\'`'
PAGES = ("overview", "item", "shards", "conflicts", "parked", "gaps", "workers", "audit")


@pytest.fixture(scope="module")
def served(ministack: MiniStack, valkey: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    directory = tmp_path_factory.mktemp("console")
    with served_world(ministack, valkey, directory, key=HOSTILE) as found:
        lose_something(found.world)
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, served: Served) -> Iterator[Page]:
    """The console in a context of its own; what it complains about fails the test, and so does a request elsewhere."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(PATIENT_SECONDS * 1000)
    complaints: list[str] = []
    elsewhere: list[str] = []
    origin = f"http://127.0.0.1:{served.daemon.port}/"
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda line: complaints.append(line.text) if "Content Security" in line.text else None)
    page.on("request", lambda request: None if request.url.startswith(origin) else elsewhere.append(request.url))
    page.goto(f"{origin}console/")
    page.wait_for_selector("main section")
    yield page
    assert (complaints, elsewhere) == ([], [])
    context.close()


def visit(page: Page, name: str) -> None:
    page.evaluate(f"location.hash = '#/{name}'")
    page.wait_for_selector(f'nav a[data-page="{name}"][aria-current]')
    page.wait_for_selector("main section")


def give(page: Page, token: str) -> None:
    page.get_by_role("dialog").get_by_label("Token").fill(token)
    page.get_by_role("button", name="Use it").click()


def test_every_page_shows_what_is_there_as_text_and_no_value(page: Page) -> None:
    seen = {}
    for name in PAGES:
        visit(page, name)
        if name in {"conflicts", "parked"}:
            page.locator("tbody button").first.click()
            page.wait_for_selector("main section >> nth=1")
        seen[name] = page.inner_text("body")
        assert PLANTED not in page.content(), name
        assert page.evaluate("window.hacked") is None, name
        assert page.locator("main script, main img").count() == 0, name
    assert "problems" in (page.get_attribute("#verdict", "class") or "")
    assert "orders/eu lost records" in seen["overview"]
    assert "replicator parked list --rule orders" in seen["overview"]
    assert f"pk={HOSTILE}, sk=1" in seen["conflicts"]
    assert f"pk={HOSTILE}, sk=2" in seen["parked"]
    assert "us:orders" in seen["shards"]
    assert page.locator("svg.lineage").count() == 0, "another page is drawn"
    assert GAP in seen["gaps"]
    assert seen["workers"].count("ready") == 2


def test_shards_are_drawn_behind_their_parents(page: Page, served: Served) -> None:
    found = served.ask("/shards")[1]
    (shard,) = found["shards"]
    family = {"old": [], "left": ["old"], "right": ["old", "gone"], "merged": ["left", "right"]}
    shards = [{**shard, "shard": name, "parents": parents} for name, parents in family.items()]
    body = json.dumps({**found, "shards": shards})
    page.route("**/api/v1/shards*", lambda route: route.fulfill(body=body, content_type="application/json"))
    visit(page, "shards")
    columns = {}
    for name in family:
        place = page.locator("svg.lineage g", has=page.get_by_text(name, exact=True)).get_attribute("transform")
        columns[name] = float((place or "").removeprefix("translate(").split()[0])
    assert columns["old"] < columns["left"] == columns["right"] < columns["merged"]
    assert page.locator("svg.lineage > path").count() == 4, "one line for each parent that is known"


def test_thousands_of_shards_are_drawn_in_part_and_listed_in_pages(page: Page, served: Served) -> None:
    found = served.ask("/shards")[1]
    (shard,) = found["shards"]
    shards = [{**shard, "shard": f"shard-{number:04}", "parents": []} for number in range(1000)]
    shards[999] |= {"state": "waiting", "parents": ["shard-0998"], "waits_for": ["shard-0998"]}
    body = json.dumps({**found, "shards": shards, "more": True})
    page.route("**/api/v1/shards*", lambda route: route.fulfill(body=body, content_type="application/json"))
    visit(page, "shards")
    assert page.locator("svg.lineage g").count() == 200
    assert page.locator("svg.lineage g.waiting").count() == 1, "what waits is drawn first"
    assert page.locator("svg.lineage > path").count() == 1, "and what it waits for"
    assert "Only the first 1000 shards are shown" in page.inner_text("main")
    assert "200 of 1000 shards are drawn" in page.inner_text("main")
    pages_are_turned(page, "Shards of us:orders", 1000, "shard-")


def test_thousands_of_leases_are_listed_in_pages(page: Page, served: Served) -> None:
    found = served.ask("/leases?fast=true")[1]
    leases = [{**found["shards"][0], "shard": f"shard-{number:04}"} for number in range(5000)]
    body = json.dumps({**found, "shards": leases})
    page.route("**/api/v1/leases*", lambda route: route.fulfill(body=body, content_type="application/json"))
    visit(page, "workers")
    pages_are_turned(page, "Shards and their owners", 5000, "shard-")


def pages_are_turned(page: Page, caption: str, count: int, name: str) -> None:
    """A long table shows a page, turns it to both sides, and stands where it stood when it is drawn anew."""
    table = page.get_by_role("table", name=caption)
    # Of the table's own block: other tables of the page may have pages, too.
    block = page.locator("div", has=table).last
    assert table.locator("tbody tr").count() == 100
    assert f"Rows 1 to 100 of {count}" in block.inner_text()
    assert block.get_by_role("button", name="Previous").is_disabled()
    block.get_by_role("button", name="Next").click()
    assert f"Rows 101 to 200 of {count}" in block.inner_text()
    assert table.get_by_text(f"{name}0100").count() == 1
    assert table.get_by_text(f"{name}0099").count() == 0
    page.evaluate("document.getElementById('dialog').dispatchEvent(new Event('close'))")  # draws the page anew
    assert f"Rows 101 to 200 of {count}" in block.inner_text()
    block.get_by_role("button", name="Previous").click()
    assert f"Rows 1 to 100 of {count}" in block.inner_text()


def test_the_trend_of_the_last_hour_is_there_at_once(page: Page, served: Served) -> None:
    def samples() -> int:
        return len(served.ask("/history")[1]["lags"].get("orders/replica/eu:orders", []))

    wait_until(lambda: samples() > 1, "no worker remembers anything")
    page.reload()
    label = page.locator("svg.spark").first.get_attribute("aria-label")
    assert label is not None
    assert label.startswith("Lag of orders/replica/eu:orders in the last hour: now ")


def test_a_figure_stays_on_one_line_beside_the_longest_names(page: Page, served: Served) -> None:
    found = served.ask("/status")[1]
    name = "-".join(["orders"] * 9)
    text = json.dumps(found).replace("orders/replica/eu:orders", f"{name}/replica/eu:{name}")
    body = text.replace('"name": "orders"', f'"name": "{name}"')
    page.route("**/api/v1/status*", lambda route: route.fulfill(body=body, content_type="application/json"))
    page.reload()
    page.get_by_text(name, exact=True).first.wait_for()
    figures = page.locator('td[data-label="lag"] .whole, td[data-label="hours left"] .whole')
    assert figures.count() == 2
    assert figures.evaluate_all("found => found.map(each => each.getClientRects().length)") == [1, 1]


def test_positions_go_back_and_shards_leave_their_worker_by_buttons(page: Page, served: Served) -> None:
    visit(page, "shards")
    page.get_by_role("button", name="Rewind…").click()
    give(page, TOKENS["alice"])
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("replicator rewind orders --to trim_horizon").wait_for()
    dialog.get_by_role("button", name="Rewind", exact=True).click()
    page.get_by_text("Rewind: done.").wait_for()
    visit(page, "workers")
    page.get_by_role("button", name="Release").last.click()
    dialog.get_by_text("replicator leases release --shard").wait_for()
    dialog.get_by_role("button", name="Release", exact=True).click()
    page.get_by_text("Release: done.").wait_for()
    deeds = [each["what"] for each in served.ask("/audit")[1]["deeds"]]
    assert {"rewind", "release_leases"} <= {*deeds}


def test_entries_of_items_that_are_gone_are_shown_before_they_may_be_dropped(page: Page, served: Served) -> None:
    visit(page, "workers")
    page.get_by_role("button", name="Look for entries of items that are gone…").click()
    give(page, TOKENS["screen"])
    page.get_by_text("and none is of an item that is gone").wait_for()
    found = {"cache": "eu_main", "template": "o:{pk}:{sk}", "rules": ["orders"], "looked_at": 7, "opaque": 0,
             "orphans": 1, "dropped": 0, "more": True, "keys": ["o:gone:1"], "unknown": ""}  # fmt: skip
    page.route("**/api/v1/caches/orphans", lambda route: route.fulfill(json={"group": "test", "templates": [found]}))
    page.get_by_role("button", name="Look for entries of items that are gone…").click()
    give(page, TOKENS["alice"])
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("replicator caches --orphans --drop").wait_for()
    dialog.get_by_text("o:gone:1").wait_for()
    dialog.get_by_role("button", name="Drop", exact=True).click()
    page.get_by_text("Drop: done.").wait_for()
    assert "drop_orphans" in {each["what"] for each in served.ask("/audit")[1]["deeds"]}


def test_a_deed_shows_its_command_asks_once_and_takes_a_token(page: Page, served: Served) -> None:
    page.get_by_role("button", name="Pause", exact=True).click()
    give(page, "wrong" * 8)
    page.get_by_text("This worker does not know the token.").wait_for()
    assert not served.ask("/status")[1]["rules"][0]["paused"]
    give(page, TOKENS["alice"])
    page.get_by_label("Reason").fill("it's <b>me</b>")
    command = "replicator pause orders --note 'it'\"'\"'s <b>me</b>'"
    page.get_by_role("dialog").get_by_text(command).wait_for()
    page.get_by_role("dialog").get_by_role("button", name="Pause", exact=True).click()
    page.get_by_role("button", name="Resume", exact=True).wait_for()
    (rule,) = served.ask("/status")[1]["rules"]
    assert (rule["paused"], rule["pause_note"]) == (True, "it's <b>me</b>")
    page.get_by_role("button", name="Resume", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Resume", exact=True).click()
    page.get_by_role("button", name="Pause", exact=True).wait_for()
    visit(page, "audit")
    page.get_by_text(command).wait_for()
    assert "alice" in page.inner_text("main")


def test_values_are_revealed_one_by_one_and_a_loser_is_promoted(page: Page, served: Served) -> None:
    visit(page, "conflicts")
    page.get_by_role("button", name=served.conflict["id"][:12]).click()
    assert PLANTED not in page.content()
    page.get_by_role("button", name="Reveal values").click()
    give(page, TOKENS["screen"])
    page.get_by_text(f"{PLANTED} foreign").wait_for()
    page.get_by_role("button", name="Hide values").click()
    assert PLANTED not in page.content()
    page.get_by_role("button", name="Promote the loser").click()
    give(page, TOKENS["alice"])
    dialog = page.get_by_role("dialog")
    dialog.get_by_text(f"replicator conflicts promote {served.conflict['id']} --region us").wait_for()
    assert PLANTED not in page.content()
    dialog.get_by_role("button", name="Promote", exact=True).click()
    page.get_by_text("Promote: done.").wait_for()
    assert {"S": f"{PLANTED} foreign"} in [item["text"] for item in served.world.items("us", "orders")]


def test_an_item_is_found_and_why_its_places_differ(page: Page) -> None:
    visit(page, "item")
    page.get_by_label("Key").fill(json.dumps({"pk": HOSTILE, "sk": 2}))
    page.get_by_role("button", name="Look").click()
    give(page, TOKENS["screen"])
    page.get_by_text("copies differ").wait_for()
    assert "orders in eu: is absent" in page.inner_text("main")
    assert PLANTED not in page.content()
    page.get_by_role("button", name="Reveal values").click()
    page.get_by_text(PLANTED).first.wait_for()
    assert page.evaluate("window.hacked") is None


def test_it_can_be_used_by_keyboard_alone(page: Page) -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.get_by_role("button", name="Pause", exact=True).focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.type") == "password"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog:not([open])", state="attached")
    page.get_by_role("link", name="Workers").focus()
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Leases").wait_for()
    page.get_by_role("button", name="Theme: auto").click()
    page.get_by_role("button", name="Theme: light").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(18, 21, 27)"
    for role in ("banner", "navigation", "main", "contentinfo"):
        assert page.get_by_role(role).count() == 1, role


def test_what_is_old_is_said_to_be_old_and_a_hidden_page_asks_nothing(browser: Browser, served: Served) -> None:
    page = browser.new_page()
    page.set_default_timeout(PATIENT_SECONDS * 1000)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/api/" in request.url else None)
    page.add_init_script("Object.defineProperty(document, 'hidden', { get: () => window.isHidden === true })")
    page.clock.install()
    page.goto(f"http://127.0.0.1:{served.daemon.port}/console/")
    page.wait_for_selector("main section")
    page.evaluate("window.isHidden = true")
    before = len(asked)
    page.clock.run_for(120_000)
    assert len(asked) == before
    page.evaluate("window.isHidden = false")
    with page.expect_response("**/api/v1/status"):
        page.clock.run_for(2_000)
    assert len(asked) == before + 1, "one look at a time"
    page.route("**/api/**", lambda route: route.abort())
    page.clock.run_for(6_000)
    page.get_by_text("The worker does not answer. What is shown is from").wait_for()
    assert page.inner_text("#verdict").startswith("Cannot know. Last known: 2 problems")
    page.unroute("**/api/**")
    served.proxy.status, served.proxy.page = 503, b"{}"
    served.proxy.denied = frozenset({"Query", "GetItem", "UpdateItem", "PutItem", "DeleteItem", "Scan"})
    try:
        said = page.locator("#verdict.unknown", has_text="cannot know")
        for _ in range(20):
            with page.expect_response("**/api/v1/status"):
                page.clock.run_for(6_000)
            if said.count():
                break
        said.wait_for()
    finally:
        served.proxy.denied = frozenset()
    page.close()
    wait_until(lambda: served.ask("/verdict")[1]["verdict"]["state"] == "problems", "it does not come back")
