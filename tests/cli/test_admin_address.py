"""Where the admin server listens, and where others look for it."""

from __future__ import annotations

import socket
import urllib.request

import pytest
from aiohttp import web
from pydantic import ValidationError

from replicator.admin.server import _listen
from replicator.domain.errors import ConfigurationInvalid
from replicator.laboratory.servers import free_port
from replicator.settings import Admin
from tests.cli.daemons import running, wait_until
from tests.cli.worlds import World


def _has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


_BOTH = "http://127.0.0.1:9464 http://[::1]:9464"
needs_ipv6 = pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6 loopback")


@pytest.mark.parametrize(
    ("host", "advertise", "public", "local"),
    [
        ("127.0.0.1", None, "http://127.0.0.1:9464", "http://127.0.0.1:9464"),
        ("worker-1.example.com", None, "http://worker-1.example.com:9464", "http://worker-1.example.com:9464"),
        ("fd00::7", None, "http://[fd00::7]:9464", "http://[fd00::7]:9464"),
        ("[fd00::7]", None, "http://[fd00::7]:9464", "http://[fd00::7]:9464"),
        ("0.0.0.0", None, "http://machine:9464", "http://127.0.0.1:9464"),
        ("::", None, "http://machine:9464", _BOTH),
        ("", None, "http://machine:9464", _BOTH),
        ("::", "", "http://machine:9464", _BOTH),
        ("::", "10.0.0.7", "http://10.0.0.7:9464", _BOTH),
        ("::", "fd00::7", "http://[fd00::7]:9464", _BOTH),
        ("0.0.0.0", "[fd00::7]", "http://[fd00::7]:9464", "http://127.0.0.1:9464"),
        ("127.0.0.1", "host_1.example.com", "http://host_1.example.com:9464", "http://127.0.0.1:9464"),
    ],
)
def test_what_others_ask_is_what_is_advertised_and_what_this_machine_asks_is_where_it_listens(
    host: str, advertise: str | None, public: str, local: str
) -> None:
    admin = Admin(host=host, advertise=advertise)
    assert admin.public_url(9464, "machine") == public
    assert " ".join(admin.local_urls()) == local
    assert Admin(host=host, port=0).local_urls() == ()


@pytest.mark.parametrize(
    "advertise",
    ["http://worker-1", "worker-1:9464", "worker 1", "::", "0.0.0.0", "fe80::1%eth0", "[worker-1]:9464", "a/b", "-a"],
)
def test_what_nothing_could_ask_is_not_advertised(advertise: str) -> None:
    with pytest.raises(ValidationError, match="must be a host name or an IP address"):
        Admin(advertise=advertise)


@needs_ipv6
async def test_every_address_is_of_both_families_and_has_one_port() -> None:
    assert await _answering(Admin(host="::", port=0)) == {"127.0.0.1", "::1"}


async def test_every_address_of_ipv4_is_of_no_other_family() -> None:
    assert await _answering(Admin(host="0.0.0.0", port=0)) == {"127.0.0.1"}


async def test_every_address_of_a_machine_without_ipv6_is_of_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)
    assert await _answering(Admin(host="::", port=0)) == {"127.0.0.1"}


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1"])
async def test_an_address_of_another_machine_is_told_from_a_port_that_is_taken(host: str) -> None:
    with pytest.raises(ConfigurationInvalid, match=rf"admin.host: '{host}' is not an address of this machine"):
        await _answering(Admin(host=host, port=0))


@needs_ipv6
@pytest.mark.parametrize(("host", "shown"), [("::1", r"\[::1\]"), ("::", r"\[::\]")])
async def test_a_port_that_is_taken_is_named_with_its_address(host: str, shown: str) -> None:
    with (
        socket.create_server((host, 0), family=socket.AF_INET6) as taken,
        pytest.raises(ConfigurationInvalid, match=rf"admin.port: cannot listen on {shown}:\d+ \("),
    ):
        await _answering(Admin(host=host, port=taken.getsockname()[1]))


async def _answering(admin: Admin) -> set[str]:
    """The loopback addresses at which a server of this configuration takes connections."""
    runner = web.AppRunner(web.Application())
    await runner.setup()
    try:
        _, port = await _listen(runner, admin)
        found = set()
        for host in ("127.0.0.1", "::1"):
            try:
                socket.create_connection((host, port), timeout=10).close()
            except OSError:
                continue
            found.add(host)
        return found
    finally:
        await runner.cleanup()


@needs_ipv6
@pytest.mark.servers
def test_status_asks_a_worker_at_the_address_that_it_advertises(world: World) -> None:
    world.sound()
    world.config["admin"].update(host="::", advertise="::1")
    with running(world) as daemon:
        daemon.await_ready()
        with urllib.request.urlopen(f"http://[::1]:{daemon.port}/healthz", timeout=60) as answer:
            assert answer.status == 200
        world.config["admin"] = {"port": free_port()}  # another machine has another configuration

        def is_known() -> bool:
            document = world.run("status", "--json").json
            assert [worker["admin"] for worker in document["workers"]] == [f"http://[::1]:{daemon.port}"]
            shards = document["rules"][0]["shards"]
            return bool(shards) and all(
                target["lag_seconds"] is not None for shard in shards for target in shard["targets"]
            )

        wait_until(is_known, "status does not reach the worker")
        assert daemon.stop() == 0
