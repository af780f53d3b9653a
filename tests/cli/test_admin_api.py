"""The admin API of a living daemon: who may ask what, what is masked, what is done, and what is noted of it."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import socket
import urllib.parse
from collections.abc import Iterator
from typing import Any

import pytest

from replicator.admin.api.openapi import ENDPOINTS, openapi_document
from replicator.laboratory.servers import MiniStack, Valkey
from tests.cli.daemons import running, wait_until
from tests.cli.questions import IMAGES, OUTPUT, PAGE, QUESTIONS, Question
from tests.cli.served import GAP, PLANTED, TOKENS, Served, lose_something, served_world
from tests.cli.warm import on_terminal
from tests.cli.worlds import World
from tests.tutorial.commands import faults

pytestmark = pytest.mark.servers


@pytest.fixture(scope="module")
def served(ministack: MiniStack, valkey: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served_world(ministack, valkey, tmp_path_factory.mktemp("api")) as found:
        yield found


def members(schema: Any, document: Any, root: Any, where: str = "") -> None:
    """An answer has every member that its schema requires, of the type that it says."""
    if "$ref" in schema:
        members(root["components"]["schemas"][schema["$ref"].rpartition("/")[2]], document, root, where)
        return
    if "anyOf" in schema:
        kinds = [each for each in schema["anyOf"] if each.get("type") != "null"]
        if document is not None and len(kinds) == 1:
            members(kinds[0], document, root, where)
        return
    types = {"object": dict, "array": list, "string": str, "integer": int, "number": int | float, "boolean": bool}
    assert "type" not in schema or isinstance(document, types[schema["type"]]), (where, document)
    for name in schema.get("required", ()):
        assert name in document, (where, name)
        members(schema["properties"][name], document[name], root, f"{where}.{name}")
    for each in document if schema.get("type") == "array" else ():
        members(schema["items"], each, root, f"{where}[]")


def test_every_look_answers_as_the_document_says_and_shows_no_value(served: Served) -> None:
    document = openapi_document()
    assert served.ask("/openapi.json") == (200, document)
    for name, text in served.looks().items():
        path = next(each.path for each in ENDPOINTS if each.name == name)
        schema = document["paths"][f"/api/v1{path}"]["get"]["responses"]["200"]["content"]["application/json"]
        if name == "job":
            assert json.loads(text)["status"] == 404
            continue
        members(schema["schema"], json.loads(text), document, name)
        assert PLANTED not in text, name
        assert not any(token in text for token in TOKENS.values()), name
    for path in ("/metrics", "/status"):
        assert PLANTED not in (served.daemon.answers(path) or PLANTED)
    status = served.ask("/status")[1]
    assert (status["verdict"]["state"], len(status["workers"])) == ("problems", 2)
    assert set(status) == set(served.world.run("status", "--json").json)
    shards = served.ask("/shards")[1]["shards"]
    assert {(each["table"], each["region"], tuple(each["parents"])) for each in shards} == {("orders", "us", ())}


def test_workers_remember_how_lags_went(served: Served) -> None:
    def course(port: int) -> list[float | None]:
        found: list[float | None] = served.ask("/history", port=port)[1]["lags"].get("orders/replica/eu:orders", [])
        return found

    wait_until(lambda: len([lag for lag in course(1) if lag is not None]) > 1, "no worker remembers anything")
    assert served.world.run("status", "--json").code in {0, 1}
    assert served.daemon.answers("/history") is not None


def test_a_plan_says_what_a_new_replica_takes_a_day(served: Served) -> None:
    world = served.world
    world.table("eu", "copy")
    rule = {**world.rule, "replicas": [{"region": "eu", "table": "copy"}]}
    new = world.directory / "new.yaml"
    new.write_text(json.dumps({**world.config, "rules": [rule]}))

    def planned() -> Any:
        steps = {step["target"]: step for step in world.run("plan", str(new), "--json").json["steps"]}
        return steps["orders/replica/eu:copy"]

    wait_until(lambda: planned()["a_day"] is not None, "no worker measures anything")
    a_day = planned()["a_day"]
    assert a_day["changes_per_second"] > 0
    assert a_day["write_units"] >= a_day["changes_per_second"] * 86_400 * 0.9
    assert "write units, $" in world.run("plan", str(new)).output


def test_values_are_shown_to_a_token_that_asks_for_them_and_that_is_noted(served: Served) -> None:
    path = f"/conflicts/{served.conflict['id']}"
    assert served.ask(f"{path}?values=show")[0] == 401
    status, shown = served.ask(f"{path}?values=show", "screen")
    assert (status, shown["conflict"]["loser"]["text"]) == (200, {"S": f"{PLANTED} foreign"})
    hidden = served.ask(path, "alice")[1]["conflict"]
    assert (hidden["loser"]["text"], hidden["differs"]) == ({"S": "•••"}, ["text"])
    assert PLANTED in served.ask(f"/parked/{served.row['row']}?values=show", "alice")[1]["kept"]
    deeds = [(each["who"], each["what"], each["result"]) for each in served.ask("/audit")[1]["deeds"]]
    assert ("screen", "conflict with values", "done") in deeds
    assert ("alice", "parked_row with values", "done") in deeds


def test_an_item_is_shown_everywhere_and_why_its_places_differ(served: Served) -> None:
    path = "/rules/orders/inspect?key=" + urllib.parse.quote('{"pk":"a","sk":2}')
    assert served.ask(path)[0] == 401
    status, found = served.ask(path, "screen")
    assert (status, found["agree"], found["differences"][0]["how"]) == (200, False, "is absent")
    assert "parked" in {problem["kind"] for problem in found["reasons"]["problems"]}
    assert PLANTED not in json.dumps(found)
    assert PLANTED in json.dumps(served.ask(f"{path}&values=show", "screen")[1])
    assert served.ask(f"{path}&key=x", "screen")[0] == 400


def test_without_the_right_token_nothing_changes(served: Served) -> None:
    pause = "/rules/orders/pause"
    for token, status in ((None, 401), ("w" * 40, 401), ("", 401), ("screen", 403)):
        answered, problem = served.ask(pause, token, {})
        assert (answered, problem["status"], bool(problem["detail"])) == (status, status, True)
    assert served.ask(pause, None, {}, Authorization=f"Basic {TOKENS['alice']}")[0] == 401
    assert served.ask(pause, "alice", b"", Content_Type="text/plain")[0] == 415
    assert served.ask(pause, "alice", {"nothing": 1})[1]["detail"] == "'nothing' is no member of this body."
    assert served.ask(pause, "alice", {"note": "x" * 70_000})[0] == 413
    assert served.ask(pause, "alice", {}, Origin="http://evil.example.net")[0] == 403
    assert served.ask("/status", None, None, Host="evil.example.net")[0] == 403
    assert served.ask("/status", None, None, Host="replicator.example.com")[0] == 200
    assert served.ask("/status", None, None, Sec_Fetch_Site="cross-site")[0] == 403
    assert served.ask("/rules?rule=orders")[0] == 400
    assert served.ask("/nothing")[0] == 404
    assert served.ask("/rules/nothing/pause", "alice", {})[1]["exit_code"] == 2
    _, _, headers = served.raw("/status")
    assert headers["Cache-Control"] == "no-store"
    assert "Access-Control-Allow-Origin" not in headers
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert served.ask("/rules")[1]["rules"][0]["name"] == "orders"
    assert not served.ask("/status")[1]["rules"][0]["paused"]


def test_whatever_guesses_is_slowed_down(served: Served) -> None:
    statuses = [served.ask("/session", f"guess-{number}" * 8, port=1)[0] for number in range(14)]
    assert statuses[:10] == [401] * 10
    assert 429 in statuses[10:]
    assert "Retry-After" in served.raw("/session", "guess-again" * 4, port=1)[2]
    wait_until(lambda: served.ask("/session", "alice", port=1)[0] == 200, "it is slowed down for good")
    assert served.ask("/session", port=1)[0] == 200, "without a token none waits"
    assert served.ask("/session", "alice")[1]["access"] == "write", "another worker waits too"


def test_what_is_done_is_what_the_command_does_and_is_noted(served: Served) -> None:
    world = served.world
    assert served.ask("/rules/orders/pause", "alice", {"note": "by hand"}) == (
        200, {"rule": "orders", "region": None, "paused": True, "changed": True},
    )  # fmt: skip
    assert world.run("status", "--json").json["rules"][0]["paused"]
    assert served.ask("/rules/orders/resume", "alice", {}, port=1)[1]["changed"]

    entry = served.conflict["id"]
    assert served.ask(f"/conflicts/{entry}/promotion")[0] == 401
    status, preview = served.ask(f"/conflicts/{entry}/promotion", "alice")
    assert (status, preview["after"]["text"], preview["differs"]) == (200, {"S": "•••"}, ["text"])
    world.put("us", "orders", pk={"S": "a"}, sk={"N": "1"}, text={"S": "newer"})
    refused = served.ask(f"/conflicts/{entry}/promote", "alice", {"seen": preview["seen"]})
    assert (refused[0], "has changed since" in refused[1]["detail"]) == (409, True)
    seen = served.ask(f"/conflicts/{entry}/promotion", "alice")[1]["seen"]
    assert served.ask(f"/conflicts/{entry}/promote", "alice", {"seen": seen})[0] == 200
    assert {"S": f"{PLANTED} foreign"} in [item["text"] for item in world.items("us", "orders")]

    row = served.other_row["row"]
    status, tried = served.ask(f"/parked/{row[:8]}/retry", "alice", {})
    assert (status, tried["settled"], tried["row"]["row"]) == (200, None, row)
    status, dropped = served.ask(f"/parked/{row}/drop", "alice", {})
    assert (dropped["settled"], dropped["settled_by"]) == ("dropped", "alice")
    assert served.ask(f"/parked/{row}/drop", "alice", {})[0] == 404

    assert served.ask("/caches/orphans")[0] == 401
    status, gone = served.ask("/caches/orphans/drop", "alice", {"most": 5})
    assert (status, [each["dropped"] for each in gone["templates"]]) == (200, [0])
    assert served.ask("/caches/orphans/drop", "screen", {})[0] == 403

    status, begun = served.ask("/rules/orders/verify", "alice", {})
    assert (status, begun["job"]["kind"], begun["job"]["by"]) == (200, "verify", "alice")
    assert served.ask(f"/jobs/{begun['job']['job']}")[1]["job"]["rule"] == "orders"
    cancelled = served.ask(f"/jobs/{begun['job']['job']}/cancel", "alice", {})
    assert (cancelled[0], cancelled[1].get("job", {}).get("state")) in {(200, "cancelled"), (400, None)}
    lose_something(world)
    assert [each["gap"] for each in served.ask("/gaps")[1]["gaps"]] == [GAP]
    accepted = served.ask("/gaps/fcca/acknowledge", "alice", {"note": "compared"})[1]
    assert (accepted["changed"], accepted["gap"]["acknowledged_by"]) == (True, "alice")
    let_it_move(served)
    looked = served.ask("/reload", "alice", {"dry_run": True})[1]["workers"]
    assert [each["result"] for each in looked] == ["unchanged", "unchanged"]
    digest = hashlib.sha256(world.path.read_bytes()).hexdigest()
    assert {digest[:16]} == {each["file"] for each in served.ask("/configuration", "screen")[1]["workers"]}

    listed = world.run("audit", "--json", "--limit", "50").json["deeds"]
    deeds = {each["what"]: each for each in reversed(listed)}
    assert deeds["pause"]["command"] == "replicator pause orders --note 'by hand'"
    assert (deeds["pause"]["who"], deeds["pause"]["origin"], deeds["pause"]["result"]) == (
        "alice", "127.0.0.1", "done",
    )  # fmt: skip
    results = [(each["what"], each["result"]) for each in reversed(listed)]
    assert results.index(("promote", "refused")) < results.index(("promote", "done"))
    assert ("drop_parked", "refused") in results
    said = json.dumps(listed) + world.run("audit").output + served.daemon.said()
    assert PLANTED not in said
    assert not any(token in said for token in TOKENS.values())
    assert "admin_deed" in said


def let_it_move(served: Served) -> None:
    """Positions go back where the preview said so, shards leave their owners, and no table is accepted unseen."""
    assert served.ask("/rules/orders/rewind?to=trim_horizon")[0] == 401
    status, shown = served.ask("/rules/orders/rewind?to=trim_horizon", "screen")
    assert (status, {step["target"] for step in shown["steps"]}) == (200, {"orders/replica/eu:orders"}), shown
    asked = {"to": "trim_horizon", "seen": "other"}
    assert served.ask("/rules/orders/rewind", "alice", asked)[0] == 409
    status, done = served.ask("/rules/orders/rewind", "alice", {**asked, "seen": shown["seen"]})
    assert (status, {each["target"] for each in done["moved"]}) == (200, {"orders/replica/eu:orders"}), done
    assert served.ask("/rules/orders/rewind?to=never", "alice")[0] == 400

    assert served.ask("/leases/release", "alice", {})[0] == 400
    shard = done["moved"][0]["shard"]

    def is_released() -> bool:
        released = served.ask("/leases/release", "alice", {"shard": shard})[1]["released"]
        return [each["shard"] for each in released] == [shard]

    wait_until(is_released, "it has no owner")
    status, refused = served.ask("/rules/orders/accept", "alice", {"region": "eu"})
    assert (status, "is known to be another one" in refused["detail"]) == (400, True)
    deeds = served.ask("/audit", "screen")[1]["deeds"]
    assert f"replicator leases release --shard {shard}" in {each["command"] for each in deeds}
    assert "replicator rewind orders --to trim_horizon" in {each["command"] for each in deeds}


def test_while_the_coordination_table_is_silent_nothing_is_claimed_and_nothing_changes(served: Served) -> None:
    served.proxy.status, served.proxy.page = 503, b"{}"
    served.proxy.denied = frozenset({"Query", "GetItem", "UpdateItem", "PutItem", "DeleteItem", "Scan"})
    try:
        wait_until(lambda: served.ask("/verdict")[1]["verdict"]["state"] == "unknown", "it is known in spite of that")
        wait_until(lambda: served.ask("/status")[1]["coordination_error"], "an answer of before is shared for good")
        assert served.ask("/leases?fast=true")[0] == 503
        answered, problem = served.ask("/rules/orders/pause", "alice", {})
        assert (answered, problem["exit_code"]) == (503, 69), problem
    finally:
        served.proxy.denied = frozenset()
    wait_until(lambda: served.ask("/rules")[1].get("trouble", "") is None, "it does not come back")
    wait_until(lambda: not served.ask("/status")[1]["coordination_error"], "an answer of before is shared for good")
    assert not served.ask("/status")[1]["rules"][0]["paused"]


def test_a_daemon_without_the_setting_serves_none_of_it(world: World) -> None:
    world.sound()
    with running(world) as daemon:
        wait_until(lambda: daemon.answers("/status") is not None, "it does not serve")
        with socket.create_connection(("127.0.0.1", daemon.port)) as connection:
            connection.sendall(b"GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert connection.recv(4096).startswith(b"HTTP/1.1 404")


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.title)
def test_a_question_is_answered_by_one_command_on_a_terminal_of_80_columns(served: Served, question: Question) -> None:
    code, output = on_terminal(question.command, served.world.environment)
    assert code in {0, 1}
    assert re.search(question.answer, output, re.MULTILINE), output
    assert max(map(len, output.splitlines())) <= 80


def test_the_page_of_questions_has_each_with_its_command_and_pictures() -> None:
    text = PAGE.read_text()
    for question in QUESTIONS:
        assert f"## {question.title}\n" in text
        assert f"$ replicator {' '.join(question.command)}\n" in text
    pictures = {question.picture(scheme) for question in QUESTIONS for scheme in ("light", "dark")}
    assert {IMAGES.parent / path for path in re.findall(r'"(images/[^"]+)"', text)} == pictures == {*IMAGES.iterdir()}
    screens = re.findall(r"^```text\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert max(len(line) for screen in screens for line in screen.splitlines()) <= 80


def test_what_the_reference_of_commands_shows_of_them_fits_and_names_commands_that_exist() -> None:
    screens = json.loads(OUTPUT.read_text())
    assert len(screens) > 15
    for name, screen in screens.items():
        command, *lines = screen.splitlines()
        assert command.startswith(f"$ replicator {name}")
        assert [*faults(shlex.split(command)[1:])] == []
        assert max(map(len, lines)) <= 80
        assert lines[-1] in {"(exit code 0)", "(exit code 1)"}
