"""Who may ask the admin API, and what a request may give."""

from __future__ import annotations

import hmac
import json
import re
from typing import Any

import pytest
from pydantic import SecretStr

from replicator.admin.api.endpoints import Asked, Endpoint, Field
from replicator.admin.api.guard import Caller, Guesses, Tokens, is_own_host, is_own_page, token_in
from replicator.admin.api.masking import MASK, masked, shown_entry
from replicator.admin.api.openapi import ENDPOINTS, openapi_document
from replicator.admin.api.problems import Problem
from replicator.settings import Api
from replicator.settings.admin import Admin, api_problems

WRITE, READ = "w" * 32, "r" * 32


def tokens() -> Tokens:
    api = Api.model_validate({"tokens": {"alice": {"secret": "a"}, "screen": {"secret": "b", "access": "read"}}})
    return Tokens(api, {"a": SecretStr(WRITE), "b": SecretStr(READ)})


def test_a_token_is_known_by_its_whole_text() -> None:
    assert tokens().holder(WRITE, "::1") == Caller("alice", "write", "::1")
    assert tokens().holder(READ, "::1") == Caller("screen", "read", "::1")
    for wrong in ("", WRITE[:-1], f"{WRITE} ", WRITE.upper(), "\udc80"):
        assert tokens().holder(wrong, "::1") is None


def test_every_token_is_compared_to_the_end_whichever_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[int, int]] = []
    compare = hmac.compare_digest

    def watched(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return compare(one, other)

    monkeypatch.setattr(hmac, "compare_digest", watched)
    for offered in (WRITE, READ, "w", "x" * 5000):
        compared.clear()
        tokens().holder(offered, "::1")
        assert compared == [(32, 32)] * 2, "it takes as long for each"


def test_the_server_is_on_loopback_and_offers_no_api_unless_that_is_asked_for() -> None:
    admin = Admin()
    assert admin.host == "127.0.0.1"
    assert not admin.api.enabled


@pytest.mark.parametrize(
    ("header", "token"),
    [(None, None), ("Bearer abc", "abc"), ("bearer  abc ", "abc"), ("Basic abc", ""), ("abc", ""), ("", "")],
)
def test_only_a_bearer_token_is_one(header: str | None, token: str | None) -> None:
    assert token_in(header) == token


def test_an_address_guesses_ten_times_and_then_as_fast_as_guesses_are_refilled() -> None:
    guesses = Guesses()
    for _ in range(10):
        assert guesses.wait("a", 0.0) == 0.0
        guesses.wrong("a", 0.0)
    assert guesses.wait("a", 0.0) == 2.0
    assert guesses.wait("a", 1.5) == 0.5
    assert guesses.wait("b", 0.0) == 0.0, "another address waits for it"
    assert guesses.wait("a", 2.0) == 0.0
    guesses.wrong("a", 2.0)
    assert guesses.wait("a", 2.0) == 2.0


def test_of_many_addresses_that_guess_a_bounded_number_is_remembered() -> None:
    guesses = Guesses()
    for number in range(3000):
        guesses.wrong(str(number), 0.0)
    assert len(guesses._left) == 1024


@pytest.mark.parametrize(
    ("host", "is_own"),
    [
        ("127.0.0.1:9464", True),
        ("[::1]:9464", True),
        ("10.1.2.3", True),
        ("localhost:9464", True),
        ("worker-1.example.com.:80", True),
        ("WORKER-1.example.com", True),
        ("evil.example.net:9464", False),
        ("localhost.evil.net", False),
        ("", False),
        ("[::1", False),
    ],
)
def test_a_name_that_is_not_the_servers_own_is_refused(host: str, is_own: bool) -> None:
    assert is_own_host(host, {"worker-1.example.com"}) is is_own


@pytest.mark.parametrize(
    ("origin", "site", "is_own"),
    [
        (None, None, True),
        ("http://h:1", "same-origin", True),
        (None, "none", True),
        ("http://evil:1", None, False),
        ("null", None, False),
        ("http://h:2", None, False),
        ("http://h:1", "cross-site", False),
        (None, "same-site", False),
    ],
)
def test_a_page_of_another_origin_is_refused(origin: str | None, site: str | None, is_own: bool) -> None:
    assert is_own_page("h:1", origin, site) is is_own


# -- settings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("api", "secret", "said"),
    [
        ({"tokens": {"alice": {"secret": "none"}}}, WRITE, "must be the name of one of secrets (a), and is none"),
        ({"tokens": {"alice": {"secret": "a"}}}, "planted-and-short", "at least 32 characters"),
        ({"tokens": {"alice": {"secret": "a"}}}, f"planted {WRITE}", "without spaces"),
        ({"tokens": {"alice": {"secret": "a"}, "bob": {"secret": "a"}}}, WRITE, "the same token as that of 'alice'"),
        ({"enabled": True, "read_without_token": False}, WRITE, "needs one token at least"),
        ({"enabled": True, "tokens": {"alice": {"secret": "a"}}}, WRITE, None),
    ],
)
def test_a_token_that_cannot_be_one_is_named_and_never_shown(api: Any, secret: str, said: str | None) -> None:
    found = list(api_problems(Api.model_validate(api), {"a": SecretStr(secret)}))
    assert said in found[0] if said else not found, found
    assert not any("planted" in each for each in found)


# -- requests ----------------------------------------------------------------------------------------------------------


async def nothing(_: Asked) -> None:
    """Nothing is done."""


ENDPOINT = Endpoint(
    "deed",
    "POST",
    "/rules/{rule}/deed",
    "",
    {},
    nothing,
    (
        Field("rule", "name", place="path", required=True, most=10),
        Field("note", "why", place="body", option="--note"),
        Field("units", "units", "integer", "body", "--units", most=100),
        Field("dry", "only say", "boolean", "body", "--dry", default=False),
        Field("how", "how", place="body", option="--how", choices=("keep", "list"), default="list"),
        Field("seen", "digest", place="body", required=True),
    ),
    command="deed",
)


def test_what_is_given_is_checked_and_the_command_says_the_same() -> None:
    body = json.dumps({"note": "it's 1; rm -rf", "units": 7, "dry": True, "how": "keep", "seen": "x"}).encode()
    given = ENDPOINT.parsed({"rule": "orders"}, {}, body)
    assert ENDPOINT.typed(given) == "replicator deed orders --note 'it'\"'\"'s 1; rm -rf' --units 7 --dry --how keep"
    plain = ENDPOINT.parsed({"rule": "orders"}, {}, b'{"seen": "x"}')
    assert (plain["how"], plain["dry"], plain["note"]) == ("list", False, None)
    assert ENDPOINT.typed(plain) == "replicator deed orders"


@pytest.mark.parametrize(
    ("rule", "query", "body", "said"),
    [
        ("orders", {}, b"{", "must be a JSON object"),
        ("orders", {}, b"[]", "must be a JSON object"),
        ("orders", {}, b"[" * 60_000, "must be a JSON object"),
        ("orders", {}, b"{}", "seen is missing"),
        ("orders", {}, b'{"seen": "x", "other": 1}', "'other' is no member of this body"),
        ("orders", {"seen": "x"}, b"{}", "'seen' is no member of this query"),
        ("orders" * 2, {}, b'{"seen": "x"}', "rule must be a text of at most 10"),
        ("orders", {}, b'{"seen": 1}', "seen must be a text"),
        ("orders", {}, b'{"seen": "x", "units": 101}', "units must be a whole number from 1 to 100"),
        ("orders", {}, b'{"seen": "x", "units": true}', "units must be"),
        ("orders", {}, b'{"seen": "x", "units": 1.5}', "units must be"),
        ("orders", {}, b'{"seen": "x", "dry": "yes"}', "dry must be true or false"),
        ("orders", {}, b'{"seen": "x", "dry": []}', "dry must be true or false"),
        ("orders", {}, b'{"seen": "x", "how": "maybe"}', "how must be one of keep, list"),
        ("orders", {}, b'{"seen": "x", "how": {}}', "how must be one of keep, list"),
    ],
)
def test_what_is_given_wrong_is_named(rule: str, query: dict[str, str], body: bytes, said: str) -> None:
    with pytest.raises(Problem) as refused:
        ENDPOINT.parsed({"rule": rule}, query, body)
    assert said in refused.value.answer.detail
    assert refused.value.answer.status == 400


# -- values ------------------------------------------------------------------------------------------------------------


def test_values_are_left_out_and_names_and_keys_stay() -> None:
    entry = {
        "id": "e",
        "key": {"pk": {"S": "a"}},
        "winner": {"pk": {"S": "a"}, "mail": {"S": "planted"}, "same": {"M": {"x": {"S": "planted"}}}},
        "loser": {"pk": {"S": "a"}, "same": {"M": {"x": {"S": "planted"}}}, "odd": "planted"},
    }
    shown = shown_entry(entry, values=False)
    assert "planted" not in json.dumps(shown)
    assert shown["winner"] == {"pk": {"S": "a"}, "mail": {"S": MASK}, "same": {"M": MASK}}
    assert (shown["differs"], shown["masked"]) == (["mail", "odd"], True)
    assert shown_entry(entry, values=True)["winner"] == entry["winner"]
    assert masked(None) is None
    assert shown_entry({"id": "e", "winner": None, "loser": None}, values=False)["differs"] == []


# -- the document ------------------------------------------------------------------------------------------------------


def references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if "$ref" in node else []
        return own + [each for inner in node.values() for each in references(inner)]
    return [each for inner in node for each in references(inner)] if isinstance(node, list) else []


def test_the_document_describes_every_operation_and_nothing_else() -> None:
    document = openapi_document()
    assert document["openapi"] == "3.1.0"
    assert set(document["info"]) == {"title", "version", "description"}
    operations = {
        (method.upper(), path.removeprefix("/api/v1")): operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    assert operations.keys() == {(each.method, each.path) for each in ENDPOINTS}
    assert len({each["operationId"] for each in operations.values()}) == len(operations)
    for (method, path), operation in operations.items():
        parameters = {(each["in"], each["name"]): each for each in operation["parameters"]}
        assert len(parameters) == len(operation["parameters"])
        assert [name for place, name in parameters if place == "path"] == re.findall(r"{(\w+)}", path), path
        assert all(each["required"] for (place, _), each in parameters.items() if place == "path"), path
        assert all(set(each["schema"]) >= {"type"} for each in parameters.values())
        assert operation["responses"]["200"]["content"]["application/json"]["schema"], path
        assert ("requestBody" in operation) == (method == "POST")
        assert ({} in operation["security"]) <= (method == "GET"), path
    for reference in references(document):
        node = document
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]
        assert node, reference


def test_every_command_that_the_document_names_is_one() -> None:
    import typer.main

    from replicator.cli.commands import app

    program: Any = typer.main.get_command(app)
    for endpoint in ENDPOINTS:
        command = program
        words = (endpoint.command or "status").split()
        for word in words:
            command = command if word.startswith("-") else command.commands[word]
        options = {option for each in command.params for option in each.opts}
        used = {each.option for each in endpoint.fields if each.option} | {word for word in words if word[0] == "-"}
        assert used - {"--limit"} <= options, endpoint.name
