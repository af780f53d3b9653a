"""Which consumers of Kinesis streams `uninstall` deregisters: those that no other rule reads by."""

from __future__ import annotations

from typing import Any

from replicator.domain.rules import KinesisSource
from replicator.operations.uninstall import consumers_of
from replicator.settings import Settings


def settings(**streams: dict[str, Any]) -> Settings:
    """Rules that read one table; each is given its stream."""
    return Settings.model_validate(
        {
            "group": "test",
            "regions": {"us": {"region": "us-east-1"}, "eu": {"region": "eu-west-1"}},
            "coordination": {"region": "us"},
            "rules": [
                {
                    "name": name,
                    "table": "orders",
                    "source": "us",
                    "replicas": [{"region": "eu", "table": name}],
                    "stream": stream,
                }
                for name, stream in streams.items()
            ],
        }
    )


def test_a_consumer_goes_with_the_last_rule_that_reads_by_it() -> None:
    pushed = {"kinesis": "changes", "fan_out": True}
    name = KinesisSource("changes", group="test").consumer_of("orders")
    alone, both = settings(one=pushed), settings(one=pushed, two=pushed)
    assert consumers_of(alone, alone.rules) == [("us", "changes", name)]
    assert consumers_of(both, both.rules[:1]) == []
    polled = settings(one={"kinesis": "changes"})
    assert consumers_of(polled, polled.rules) == consumers_of(alone, []) == []
