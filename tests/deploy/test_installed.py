"""The Debian package on a machine of its own, under systemd as process 1: started, reloaded, found stuck, stopped."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml

from replicator.domain.errors import EXIT_WRONG_WORLD
from replicator.laboratory.servers import MiniStack, Valkey, free_port
from tests.cli.worlds import World, fresh_account
from tests.deploy.machine import Machine, NoMachine, booted, make
from tests.patience import PATIENT_SECONDS

pytestmark = pytest.mark.skipif("IMAGE_CHECK" not in os.environ, reason="only `make image-check` installs the package")

ROOT = Path(__file__).parents[2]
_UNIT = "replicator.service"
_GROUP = "replicator@orders.service"
_TOKEN = secrets.token_hex(16)
_DROP_IN = """\
[Service]
LoadCredential=secrets__api-alice:/etc/replicator/secrets/secret
LoadCredential=caches__eu_main__password:/etc/replicator/secrets/secret
LoadCredential=aws:/etc/replicator/aws
# What is shorter than the unit says, so that a test need not wait for it.
WatchdogSec=10
TimeoutAbortSec=1
RestartSec=1
"""


@dataclass
class Installed:
    """A machine with the package, and tables on a server that it reaches."""

    machine: Machine
    world: World

    def configure(self, name: str = "replicator") -> None:
        """Put the configuration in place as it is now."""
        place = self.machine.root / "etc/replicator" / f"{name}.yaml"
        place.write_text(yaml.safe_dump(self.world.config))
        place.chmod(0o644)

    def do(self, *command: str) -> None:
        done = self.machine.run("systemctl", *command)
        assert done.returncode == 0, done.stderr + self.machine.journal(command[-1])

    def replicates(self, table: str, key: str) -> None:
        """An item that is written now arrives."""
        self.world.put("us", table, pk={"S": key}, sk={"N": "1"})
        _until(lambda: key in {item["pk"]["S"] for item in self.world.items("eu", table)}, f"{table} lacks {key}")

    def api(self, path: str) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.world.config['admin']['port']}{path}",
            headers={"Authorization": f"Bearer {_TOKEN}"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    assert os.geteuid() == 0, "a machine of its own needs root"
    directory = tmp_path_factory.mktemp("machine")
    built = [sys.executable, str(ROOT / "config/systemd/build_deb.py"), "--output", str(directory)]
    subprocess.run(built, check=True, capture_output=True, timeout=PATIENT_SECONDS)
    (package,) = directory.glob("*.deb")
    with ExitStack() as stack:
        try:
            make(directory / "root", package)
            found = stack.enter_context(booted(directory / "root"))
        except NoMachine as error:
            pytest.skip(str(error))
        secret = found.root / "etc/replicator/secrets/secret"
        secret.parent.mkdir(mode=0o700)
        secret.write_text(_TOKEN)
        secret.chmod(0o600)
        for unit in (_UNIT, "replicator@.service"):
            drop_in = found.root / f"etc/systemd/system/{unit}.d/test.conf"
            drop_in.parent.mkdir()
            drop_in.write_text(_DROP_IN)
        assert found.run("systemctl", "daemon-reload").returncode == 0
        yield found


@pytest.fixture
def installed(machine: Machine, tmp_path: Path) -> Iterator[Installed]:
    with MiniStack.start(tmp_path) as server, Valkey.start(tmp_path) as valkey:
        account = fresh_account()
        world = World(server.endpoint_url, valkey.url, account, tmp_path)
        identity = machine.root / "etc/replicator/aws"
        identity.write_text(f"[default]\naws_access_key_id = {account}\naws_secret_access_key = of no use\n")
        identity.chmod(0o600)
        for name, unit in (("environment", _UNIT), ("orders.environment", _GROUP)):
            variable = f"AWS_SHARED_CREDENTIALS_FILE=/run/credentials/{unit}/aws\n"
            (machine.root / "etc/replicator" / name).write_text(variable)
        redis.Redis.from_url(valkey.url).config_set("requirepass", _TOKEN)
        world.initialise()
        tokens = {"alice": {"secret": "api-alice"}}
        world.config["admin"] = {"port": free_port(), "api": {"enabled": True, "tokens": tokens}}
        for table in ("orders", "users"):
            world.table("us", table, view="NEW_AND_OLD_IMAGES")
            world.table("eu", table)
        found = Installed(machine, world)
        found.configure()
        yield found
        for unit in (_UNIT, _GROUP):
            machine.run("systemctl", "stop", unit)
            machine.run("systemctl", "reset-failed", unit)


def test_systemd_finds_nothing_to_say_about_what_is_installed(machine: Machine) -> None:
    units = [f"/usr/lib/systemd/system/{name}" for name in (_UNIT, "replicator@.service")]
    done = machine.run("systemd-analyze", "verify", "--man=no", *units)
    assert (done.returncode, done.stderr) == (0, "")


def test_it_starts_reads_its_credential_reloads_is_found_stuck_and_stops(installed: Installed) -> None:
    machine, world = installed.machine, installed.world
    installed.do("start", _UNIT)
    assert machine.property(_UNIT, "ActiveState") == "active"
    first = machine.property(_UNIT, "MainPID")
    status = machine.run("cat", f"/proc/{first}/status").stdout
    (owner,) = [line.split()[1] for line in status.splitlines() if line.startswith("Uid:")]
    assert owner != "0"
    installed.replicates("orders", "a")
    assert installed.api("/api/v1/session")["token"] == "alice", "the credential is not read"
    entry = f"{world.account}:a:1"
    cache = redis.Redis.from_url(world.redis_url, password=_TOKEN)
    cache.set(entry, "what was before")
    world.put("us", "orders", pk={"S": "a"}, sk={"N": "1"}, note={"S": "now"})
    _until(lambda: not cache.exists(entry), "the cache is not reached with its password")

    world.config["rules"].append({"name": "users", "table": "users", "source": "us", "replicas": ["eu"]})
    installed.configure()
    installed.do("reload", _UNIT)
    installed.replicates("users", "b")
    assert machine.property(_UNIT, "MainPID") == first

    machine.run("kill", "-STOP", first)
    _until(lambda: machine.property(_UNIT, "NRestarts") == "1", "the watchdog does not end what is stuck")
    _until(lambda: machine.property(_UNIT, "ActiveState") == "active", "it is not started again")
    assert machine.property(_UNIT, "MainPID") != first
    installed.replicates("orders", "c")

    installed.do("stop", _UNIT)
    assert machine.property(_UNIT, "Result") == "success"
    assert machine.property(_UNIT, "ExecMainStatus") == "0"


def test_a_group_of_several_has_a_file_and_a_state_of_its_own(installed: Installed) -> None:
    installed.world.config["conflicts"] = {"file": "/var/lib/replicator-orders/conflicts.jsonl"}
    installed.configure("orders")
    installed.do("start", _GROUP)
    installed.replicates("orders", "a")
    assert (installed.machine.root / "var/lib/private/replicator-orders").is_dir()
    installed.do("stop", _GROUP)
    assert installed.machine.property(_GROUP, "Result") == "success"


def test_a_wrong_configuration_is_not_tried_again(installed: Installed) -> None:
    machine = installed.machine
    installed.world.rule["replicas"] = ["nowhere"]
    installed.configure()
    assert machine.run("systemctl", "start", _UNIT).returncode != 0
    assert machine.property(_UNIT, "ActiveState") == "failed"
    assert machine.property(_UNIT, "NRestarts") == "0"
    assert str(EXIT_WRONG_WORLD) in machine.journal(_UNIT)


def _until(holds: Callable[[], object], what: str) -> None:
    end = time.monotonic() + PATIENT_SECONDS
    while not holds():
        assert time.monotonic() < end, what
        time.sleep(0.2)
