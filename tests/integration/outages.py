"""A world whose regions are reached through endpoints that fail on command."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.integration.faulty_endpoint import FaultyEndpoint
from tests.integration.harness import AWS_REGIONS, World, open_world
from tests.integration.true_lag import Table
from tests.patience import PATIENT_SECONDS

REGION_OF = {name: Table(aws) for name, aws in AWS_REGIONS.items()}
Endpoints = dict[str, FaultyEndpoint]


@contextmanager
def open_failing_world(directory: Path) -> Iterator[tuple[World, Endpoints]]:
    """A fresh world, and what stands between the program and each of its regions."""
    with open_world(directory) as world, ExitStack() as stack:
        endpoints = {name: stack.enter_context(FaultyEndpoint(world.dynamodb_port)) for name in AWS_REGIONS}
        try:
            yield world, endpoints
        finally:
            for daemon in world.daemons:
                daemon.end()


def through(endpoints: Endpoints, settings: dict[str, Any]) -> dict[str, Any]:
    """A configuration whose regions are reached through endpoints that fail."""
    for name, endpoint in endpoints.items():
        settings["regions"][name]["endpoint_url"] = endpoint.url
    return settings


def writes(endpoints: Endpoints, table: str = "orders") -> Counter[str]:
    """Writes to a table that were let through, by region."""
    return Counter({name: endpoint.writes[table] for name, endpoint in endpoints.items()})


def silent(endpoints: Endpoints, seconds: float, table: str = "orders") -> bool:
    """Whether nothing writes to a table for so long."""
    before = writes(endpoints, table)
    time.sleep(seconds)
    return writes(endpoints, table) == before


def wait_for(what: str, holds: Any, seconds: float = PATIENT_SECONDS) -> float:
    """Wait until something holds; returns after how many seconds."""
    began = time.monotonic()
    while True:
        try:
            found = holds()
        except (OSError, IndexError, KeyError):
            found = False
        if found:
            return time.monotonic() - began
        assert time.monotonic() < began + seconds, f"{what} did not happen within {seconds} s"
        time.sleep(0.2)
