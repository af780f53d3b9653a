"""A daemon with everything on, and everything going wrong: what it says anywhere holds no value and no secret.

Values of items are planted, and every kind of secret: of AWS, of caches, of a webhook, of the admin API. What is shown
on purpose is left out: events carry values, and so does a conflict entry that a reader opens.
"""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import redis

from replicator.admin.api.openapi import ENDPOINTS
from replicator.laboratory.servers import Valkey, free_port
from tests.cli.daemons import Daemon, running, wait_until
from tests.cli.proxy import DenyingServer, serving
from tests.cli.served import NO_ROOM, PLANTED
from tests.cli.test_traces import collecting
from tests.cli.worlds import World

pytestmark = [pytest.mark.servers, pytest.mark.long]

OF_AWS, OF_SESSION = "planted-secret-key-of-aws", "planted-session-token-of-aws"
OF_CACHE, OF_DEAD_CACHE = "planted-password-of-cache", "planted-password-of-dead-cache"
OF_ALICE, OF_SCREEN = "planted-token-of-alice-0123456789", "planted-token-of-a-screen-0123456"
OF_HOOK, IN_HOOK = "planted-secret-of-hook", "planted-token-in-the-address"
SECRETS = (OF_AWS, OF_SESSION, OF_CACHE, OF_DEAD_CACHE, OF_ALICE, OF_SCREEN, OF_HOOK, IN_HOOK)
CONSOLE = ("", "main.js", "style.css")


class Told:
    """Everything that was said, by where."""

    def __init__(self) -> None:
        self.by_place: dict[str, str] = {}

    def add(self, place: str, *texts: str | bytes) -> None:
        said = [text if isinstance(text, str) else text.decode(errors="replace") for text in texts]
        self.by_place[place] = "\n".join([self.by_place.get(place, ""), *said])

    def with_a(self, *planted: str) -> list[tuple[str, str]]:
        """Where something of these was said, as it is or as encodings show it."""
        forms = [(each, form) for each in planted for form in (each, *_encoded(each))]
        return [(place, each) for place, said in self.by_place.items() for each, form in forms if form in said]


def _encoded(text: str) -> Iterator[str]:
    """Base64 as it shows wherever the text begins, and as a URL holds it."""
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + text.encode()).decode().rstrip("=")
        yield encoded[4 if before else 0 : -2]
    yield urllib.parse.quote(f"+{text}/")[3:]


class Hook(ThreadingHTTPServer):
    """A receiver of events that answers with what it was sent, and fails until it is mended."""

    daemon_threads = True
    status = 500
    heads: list[str]


class _HookHandler(BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.heads.append(str(self.headers))
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_OPTIONS = do_POST  # noqa: N815 - the name that the server looks for

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that the server uses
        """Say nothing."""


@contextmanager
def _hook() -> Iterator[Hook]:
    with Hook(("127.0.0.1", 0), _HookHandler) as server:
        server.heads = []
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def _cache(directory: Path) -> Iterator[Valkey]:
    """A cache that asks for a password."""
    with Valkey.start(directory) as server:
        with redis.Redis.from_url(server.url) as client:
            client.config_set("requirepass", OF_CACHE)
        yield server


def _configure(world: World, cache: Valkey, hook: Hook, collector: str) -> None:
    dead = free_port()
    world.config["log"] = {"level": "debug"}
    world.config["telemetry"] = {"endpoint": collector, "sample": 1.0}
    world.config["conflicts"] = {"file": str(world.directory / "conflicts.jsonl")}
    world.config["secrets"] = {"alice": OF_ALICE, "screen": OF_SCREEN, "shop": OF_HOOK}
    tokens = {"alice": {"secret": "alice"}, "screen": {"secret": "screen", "access": "read"}}
    world.config["admin"]["api"] = {"enabled": True, "tokens": tokens}
    world.config["caches"] = {
        "eu_main": {"region": "eu", "url": f"redis://:{OF_CACHE}@127.0.0.1:{cache.port}/0"},
        "eu_dead": {"region": "eu", "url": f"redis://127.0.0.1:{dead}/0", "username": "a", "password": OF_DEAD_CACHE},
    }
    key = f"{world.account}:{{pk}}:{{sk}}"
    action = {"key": key, "action": "refresh", "ttl": "1h"}
    world.rule["cache"] = [{"cache": name, **action} for name in ("eu_main", "eu_dead")]
    address = f"http://127.0.0.1:{hook.server_port}/{IN_HOOK}?token={IN_HOOK}"
    world.rule["events"] = [{"to": "webhook", "url": address, "secret": "shop", "allow_private": True}]


@pytest.fixture
def session(world: World, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Credentials of a session, as every process of the program finds them."""
    given = {"AWS_ACCESS_KEY_ID": world.account, "AWS_SECRET_ACCESS_KEY": OF_AWS, "AWS_SESSION_TOKEN": OF_SESSION}
    monkeypatch.setattr(World, "environment", property(lambda self: {**given, "REPLICATOR_CONFIG": str(self.path)}))
    return given


REFUSAL = {
    "__type": "com.amazon.coral.service#InvalidSignatureException",
    "message": "The request signature we calculated does not match the signature you provided.\n\nThe Canonical String"
    f" for this request should have been\n'POST\n/\n\nx-amz-security-token:{OF_SESSION}\n",
}
"""What AWS says of a signature: with all that was signed."""


def test_nothing_that_is_said_holds_a_value_or_a_secret(world: World, tmp_path: Path, session: dict[str, str]) -> None:
    told = Told()
    with _cache(tmp_path) as cache, _hook() as hook, collecting() as collector, serving(world.endpoint_url) as proxy:
        _configure(world, cache, hook, f"http://127.0.0.1:{collector.server_port}")
        world.sound()
        world.put("eu", "orders", pk={"S": "a"}, sk={"N": "1"}, text={"S": f"{PLANTED} foreign"})
        world.config["regions"]["eu"]["endpoint_url"] = proxy.url
        with running(world) as daemon:
            daemon.await_ready()
            _suffer(world, daemon, proxy, hook)
            _ask_commands(world, told)
            _ask_server(daemon, told)
            _spoil(world, daemon, told)
            assert daemon.stop() == 0
        told.add("log", daemon.said())
        told.add("spans", *collector.bodies)
        told.add("heads of requests", *hook.heads)
    for event in ("record_parked", "cache_away", "request_failed", "target_blocked", "configuration_refused"):
        assert event in told.by_place["log"], f"{event} was not among what went wrong"
    assert told.by_place["spans"]
    assert hook.heads
    assert told.with_a(*SECRETS) == []
    assert told.with_a(PLANTED) == []
    kept = (world.directory / "conflicts.jsonl").read_text()
    assert PLANTED in kept, "the log of conflicts is there to hold it"
    assert not [each for each in SECRETS if each in kept]


def _suffer(world: World, daemon: Daemon, proxy: DenyingServer, hook: Hook) -> None:
    """A conflict, parked records, refused writes and signatures, a receiver that fails, a cache that is away."""
    binary = base64.b64encode(f"{PLANTED} bytes".encode()).decode()
    world.put("us", "orders", pk={"S": "a"}, sk={"N": "1"}, text={"S": f"{PLANTED} new"}, bytes={"B": binary})
    world.put("us", "orders", pk={"S": "a"}, sk={"N": "2"}, text={"S": PLANTED + "x" * (NO_ROOM - 1)})
    wait_until(lambda: bool(world.run("parked", "list", "--json").json["parked"]), "nothing is parked")
    writes = frozenset({"PutItem", "DeleteItem", "UpdateItem", "TransactWriteItems"})
    for number, page, code in (("3", b"", "AccessDenied"), ("4", json.dumps(REFUSAL).encode(), "InvalidSignature")):
        proxy.denied, proxy.page, proxy.status = writes, page, 400
        world.put("us", "orders", pk={"S": "a"}, sk={"N": number}, text={"S": f"{PLANTED} refused"})
        _until_said(daemon, f"eu failed: {code}")
        proxy.denied = frozenset()
    wait_until(lambda: len(world.items("eu", "orders")) == 3, "the replica does not follow")
    wait_until(lambda: bool(hook.heads), "the receiver is not asked")
    hook.status = 204


def _until_said(daemon: Daemon, text: str) -> None:
    wait_until(lambda: text in daemon.said(), f"it does not say {text}")


def _ask_commands(world: World, told: Told) -> None:
    """Every command that shows something, as it shows it when nothing more is asked for."""
    key = '{"pk":"a","sk":1}'
    for words in (
        ("check",),
        ("status", "--wide"),
        ("inspect", "orders", key),
        ("inspect", "orders", '{"pk":"a","sk":2}', "--json"),
        ("conflicts", "list"),
        ("parked", "list"),
        ("leases", "list"),
        ("gaps", "list"),
        ("jobs", "list"),
        ("rules",),
        ("caches",),
        ("audit",),
        ("iam",),
        ("health",),
        ("verify", "orders", "--detach"),
    ):
        answer = world.run(*words)
        assert answer.code in {0, 1, 69, 78}, answer.said
        told.add(" ".join(("replicator", *words)), answer.said)


def _ask_server(daemon: Daemon, told: Told) -> None:
    """Every page and every answer of the admin server, without a token, with one and with a wrong one."""
    paths = ["/metrics", "/status", "/healthz", "/readyz", "/nowhere", *(f"/console/{name}" for name in CONSOLE)]
    looks = [each for each in ENDPOINTS if not each.writes]
    key = urllib.parse.quote('{"pk":"a","sk":2}')
    paths += [f"/api/v1{each.path.replace('{rule}', 'orders').replace('{id}', 'none')}?key={key}" for each in looks]
    for path in paths:
        for token in (None, OF_SCREEN, OF_ALICE + "x"):
            told.add(f"GET {path}", *_get(f"http://127.0.0.1:{daemon.port}{path}", token))
    for body in (b"{", b'{"reason": 5}'):
        told.add("POST", *_get(f"http://127.0.0.1:{daemon.port}/api/v1/rules/orders/pause", OF_ALICE, body))


def _get(url: str, token: str | None, body: bytes | None = None) -> tuple[str, bytes]:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    headers |= {} if body is None else {"Content-Type": "application/json"}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=60) as answer:
            return str(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return str(error.headers), error.read()


def _spoil(world: World, daemon: Daemon, told: Told) -> None:
    """Configurations that are wrong beside a secret: what a command, and what a reload says of them."""
    right = world.path.read_text()
    for number, (one, other) in enumerate(
        (
            ("redis://:", "redis//:"),
            ("127.0.0.1", "127.0.0.1:x/?"),
            (f"alice: {OF_ALICE}", f"alice: [{OF_ALICE}]"),
            (f"alice: {OF_ALICE}", f"alice: {OF_ALICE[:20]}"),
            (f"shop: {OF_HOOK}", f"shop: whsec_{OF_HOOK}"),
            (f"password: {OF_DEAD_CACHE}", f"passwort: {OF_DEAD_CACHE}"),
            (f"password: {OF_DEAD_CACHE}", f"password: {{{OF_DEAD_CACHE}"),
            (f"password: {OF_DEAD_CACHE}", f"password: 'x\n  {OF_DEAD_CACHE}"),
            ("secret: shop", f"secret: {OF_HOOK}"),
        )
    ):
        assert one in right, one
        wrong = world.directory / f"wrong-{number}.yaml"
        wrong.write_text(right.replace(one, other))
        others = (("run",), ("plan", str(world.directory / "replicator.yaml"), str(wrong))) if number < 2 else ()
        for words in (("check", "--offline"), *others):
            given = () if words[0] == "plan" else ("--config", str(wrong))
            answer = world.run(*words, *given)
            assert answer.code in {2, 78}, (other, words, answer.said)
            told.add(f"{words[0]} of a wrong configuration", answer.said)
    (world.directory / "replicator.yaml").write_text(right.replace("redis://:", "redis//:"))
    _until_said(daemon, "configuration_refused")
