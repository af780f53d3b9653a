"""Two pods: the image's own file system, read-only, its user without rights, and a network that knows IPv6 only."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis

from replicator.laboratory.servers import MiniStack, Valkey
from tests.cli.worlds import World, fresh_account
from tests.deploy.built_image import BuiltImage
from tests.deploy.namespaces import ipv6_alone
from tests.patience import PATIENT_SECONDS

pytestmark = pytest.mark.skipif("IMAGE_CHECK" not in os.environ, reason="only `make image-check` builds the image")

_LOOPBACK = "::1"
_PODS = {"replicator-0": "fd00:1234::a", "replicator-1": "fd00:1234::b"}
_PORT = 9464


@dataclass
class Pod:
    """A pod: its name, its address, and the variables that the chart gives to it."""

    image: BuiltImage
    configuration: Path
    name: str
    account: str
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def port(self) -> int:
        """Its own: the pods of this test share one network."""
        return _PORT + list(_PODS).index(self.name)

    @property
    def url(self) -> str:
        return f"http://[{_PODS[self.name]}]:{self.port}"

    @property
    def given(self) -> dict[str, Any]:
        environment = {
            "AWS_ACCESS_KEY_ID": self.account,
            "AWS_SECRET_ACCESS_KEY": "of no use",
            "REPLICATOR_CONFIG": "/etc/replicator/replicator.yaml",
            "REPLICATOR_ADMIN__HOST": "::",
            "REPLICATOR_ADMIN__PORT": str(self.port),
            "REPLICATOR_ADMIN__ADVERTISE": _PODS[self.name],
        }
        mounts: Mapping[Path, str] = {self.configuration: "/etc/replicator"}
        return {"environment": environment, "mounts": mounts, "hostname": self.name}

    def start(self, stack: ExitStack) -> None:
        self.processes.append(stack.enter_context(self.image.running(**self.given)))

    def command(self, *arguments: str) -> tuple[int, str]:
        """A command inside the pod, beside its worker; its exit code and what it says."""
        with self.image.running(*arguments, **self.given) as process:
            said, _ = process.communicate(timeout=PATIENT_SECONDS)
        return process.returncode, said

    def answer(self, path: str, host: str = "") -> str:
        """What its admin server says; empty when it does not answer well."""
        assert self.processes[-1].poll() is None, self.processes[-1].communicate()[0]
        url = f"http://[{host}]:{self.port}" if host else self.url
        try:
            with urllib.request.urlopen(f"{url}{path}", timeout=60) as answer:
                return str(answer.read().decode())
        except (urllib.error.URLError, OSError):
            return ""

    def stop(self) -> int:
        """SIGTERM for process 1, as a kubelet sends it."""
        process = self.processes[-1]
        (first,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(first), signal.SIGTERM)
        process.communicate(timeout=PATIENT_SECONDS)
        return process.returncode


@dataclass
class Cluster:
    """Local servers, tables, and the pods of a group, all of them on addresses of IPv6."""

    world: World
    valkey: Valkey
    pods: list[Pod]


@pytest.fixture
def cluster(tmp_path: Path, image: BuiltImage) -> Iterator[Cluster]:
    configuration = tmp_path / "configuration"
    configuration.mkdir()
    with (
        ipv6_alone(*_PODS.values()),
        MiniStack.start(tmp_path, host=_LOOPBACK) as server,
        Valkey.start(tmp_path, host=_LOOPBACK) as valkey,
    ):
        account = fresh_account()
        world = World(server.endpoint_url, valkey.url, account, configuration)
        world.config.pop("admin")
        world.config["coordination"]["lease"] = "5s"
        world.config["rules"].append({"name": "users", "table": "users", "source": "us", "replicas": ["eu"]})
        for table in ("orders", "users"):
            world.table("us", table, view="NEW_AND_OLD_IMAGES")
            world.table("eu", table)
        world.path.chmod(0o644)
        configuration.chmod(0o755)
        yield Cluster(world, valkey, [Pod(image, configuration, name, account) for name in _PODS])


def test_two_pods_replicate_over_ipv6_alone_and_know_each_other(cluster: Cluster) -> None:
    world, (one, other) = cluster.world, cluster.pods
    code, said = one.command("init")
    assert code == 0, said
    code, said = one.command("check", "--json")
    assert code == 0, said
    with ExitStack() as stack:
        for pod in cluster.pods:
            pod.start(stack)
        for pod in cluster.pods:
            _until(partial(pod.answer, "/readyz"), f"{pod.name} is not ready")
            assert pod.command("health")[0] == 0
            assert pod.answer("/healthz", host=_LOOPBACK) == "ok\n"
            assert "replicator_" in pod.answer("/metrics")
        for table in ("orders", "users"):
            world.put("us", table, pk={"S": "a"}, sk={"N": "1"}, note={"S": f"to {table}"})
        for table in ("orders", "users"):
            _until(partial(world.items, "eu", table), f"nothing came to {table}")
            assert world.items("eu", table)[0]["note"] == {"S": f"to {table}"}
        cache, entry = redis.Redis.from_url(cluster.valkey.url), f"{world.account}:a:1"
        cache.set(entry, "what was before")
        world.put("us", "orders", pk={"S": "a"}, sk={"N": "1"}, note={"S": "now"})
        _until(lambda: not cache.exists(entry), "the cache is not reached")
        cache.close()
        _until(lambda: _shared(one, other), "the pods do not share the work, or one is not asked by the other")
        addresses = {row["admin"]["S"] for row in world.items("us", "replicator-coordination") if "admin" in row}
        assert addresses == {one.url, other.url}
        assert [one.stop(), other.stop()] == [0, 0]


def _shared(asked: Pod, other: Pod) -> bool:
    """Whether `status` in one pod shows both workers, each with a shard, and the other's own word on its shard."""
    _, said = asked.command("status", "--json")
    document = json.loads(said)
    assert {worker["admin"] for worker in document["workers"]} <= {asked.url, other.url}
    shards = [shard for rule in document["rules"] for shard in rule["shards"]]
    lags = [target["lag_seconds"] for shard in shards for target in shard["targets"]]
    return len({shard["owner"] for shard in shards}) == len(_PODS) and None not in lags


def _until(holds: Callable[[], object], what: str) -> None:
    end = time.monotonic() + PATIENT_SECONDS
    while not holds():
        assert time.monotonic() < end, what
        time.sleep(0.2)
