"""What a process has open grows with its configuration, and not with one that is refused."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import pytest

from replicator.adapters.clock import SystemClock
from replicator.app.openings import Openings
from replicator.settings import Settings

REGIONS = {"us": "us-east-1", "eu": "eu-west-1", "ap": "ap-south-1"}
EVENTS = [{"to": "redis_stream", "cache": "one", "stream": "changes"}]


def settings(*replicas: str, **more: Any) -> Settings:
    rule = {"name": "orders", "table": "orders", "source": "us", "replicas": list(replicas), **more}
    written: dict[str, Any] = {
        "group": "test",
        "regions": {name: {"region": region, "endpoint_url": "http://127.0.0.1:1"} for name, region in REGIONS.items()},
        "coordination": {"region": "us"},
        "caches": {"one": {"region": "eu", "url": "redis://127.0.0.1:1/0"}},
        "rules": [rule],
    }
    return Settings(**written)


async def test_what_was_opened_for_a_refused_configuration_is_closed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    noted: list[str] = []
    async with AsyncExitStack() as stack:
        openings = Openings(stack, SystemClock(), None, lambda place: noted.append(place.region_id))
        places, sinks = openings.places, openings.sinks
        async with openings.beyond(settings("eu")) as more:
            more.keep()
        first = dict(places)
        assert set(first) == {*noted} == {"us", "eu"}

        async with openings.beyond(settings("eu", "ap", events=EVENTS)):
            assert set(places) == {"us", "eu", "ap"}, "the look at the world finds it"
        assert (places, openings.caches, sinks, len(noted)) == (first, {}, {}, 2)

        async with openings.beyond(settings("eu", "ap", events=EVENTS)) as more:
            more.keep()
        assert (set(places), set(openings.caches), len(sinks)) == ({"us", "eu", "ap"}, {"one"}, 1)
        assert places["eu"] is first["eu"]
        openings.forget("orders")
        assert sinks == {}
