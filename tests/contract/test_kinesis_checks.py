"""`check` and `init` of rules that read in Kinesis, at the laboratory's Kinesis: one sentence for each trouble."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from replicator.adapters.aws.clients import Place
from replicator.checks.creation import initialise
from replicator.checks.facts import Fact, Status
from replicator.checks.judge import judge_rule
from replicator.checks.permission_probes import prove
from replicator.checks.world import look
from replicator.domain.errors import StreamUnusable
from replicator.domain.rules import KinesisSource
from replicator.laboratory.streamlab import Laboratory, laboratory
from replicator.settings import Settings
from tests.contract.worlds import place

REGION = "eu-west-1"
ARN = f"arn:aws:kinesis:{REGION}:000000000000:stream/changes"


class Bench:
    """A table `orders` and a Kinesis stream `changes`, which are strangers at first."""

    def __init__(self, lab: Laboratory, opened: Place) -> None:
        self.lab = lab
        self.places = {"eu": opened}
        self.settings = self.rule()

    def rule(self, **stream: object) -> Settings:
        return Settings.model_validate(
            {
                "group": "test",
                "regions": {"eu": {"region": REGION, "endpoint_url": self.lab.url}},
                "coordination": {"region": "eu"},
                "rules": [
                    {
                        "name": "orders",
                        "table": "orders",
                        "source": "eu",
                        "replicas": [{"region": "eu", "table": "copy"}],
                        "stream": {"kinesis": "changes", **stream},
                    }
                ],
            }
        )

    async def call(self, operation: str, **parameters: Any) -> Any:
        client, _ = await self.places["eu"].kinesis.opened()
        return await getattr(client, operation)(**parameters)

    async def facts(self, settings: Settings | None = None) -> list[Fact]:
        settings = settings or self.settings
        world = await look(settings, self.places, thorough=False)
        judged = judge_rule(settings, world, settings.rules[0])
        proven = await prove(settings, self.places, world)
        return [fact for fact in [*judged, *proven] if fact.subject == "table orders in eu"]

    async def stream(self, settings: Settings | None = None) -> Fact:
        (fact,) = [fact for fact in await self.facts(settings) if fact.name == "stream"]
        return fact

    async def init(self, *, dry_run: bool = False) -> list[str]:
        steps = await initialise(self.settings, self.places, dry_run=dry_run, enable_streams=True)
        return [
            step.action if step.error is None else step.error.message
            for step in steps
            if step.subject == "stream of orders in eu"
        ]


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "laboratory")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "laboratory")
    async with laboratory(seed=3) as lab, place(lab.url) as opened:
        lab.make("orders", REGION)
        made = Bench(lab, opened)
        await made.call("create_stream", StreamName="changes", ShardCount=3)
        yield made


async def test_init_makes_the_stream_a_destination_once_and_check_says_what_is_read(bench: Bench) -> None:
    assert (await bench.stream()).found.startswith("Table orders in eu does not send its changes to Kinesis stream")
    assert await bench.init(dry_run=True) == ["would enable in Kinesis stream changes, in microseconds"]
    assert await bench.init() == ["enabled in Kinesis stream changes, in microseconds"]
    assert await bench.init() == ["exists, in Kinesis stream changes"]
    facts = {fact.name: fact for fact in await bench.facts()}
    assert facts["stream"].found == "Kinesis stream changes, 3 open shards, times in microseconds, kept for 24 h."
    assert facts["stream may be read"].status is Status.OK
    assert facts["stream may be read"].found == "3 shards listed."


async def test_init_registers_a_consumer_once_and_check_says_what_it_lacks(bench: Bench) -> None:
    bench.settings = bench.rule(fan_out=True)
    await bench.init()
    name = KinesisSource("changes", group="test").consumer_of("orders")

    async def registered(*, dry_run: bool = False) -> list[str]:
        steps = await initialise(bench.settings, bench.places, dry_run=dry_run, enable_streams=False)
        return [
            step.action if step.error is None else step.error.message
            for step in steps
            if step.subject == "consumer of orders in eu"
        ]

    async def fan_out() -> Fact:
        (fact,) = [fact for fact in await bench.facts() if fact.name == "fan-out"]
        return fact

    await bench.call("deregister_stream_consumer", StreamARN=ARN, ConsumerName=name)
    missing = await fan_out()
    assert (missing.is_wrong, missing.kind) == (True, StreamUnusable)
    assert missing.found == f"Kinesis stream changes in eu has no consumer {name}, which fan_out needs."
    assert "`replicator init` registers it" in missing.remedy
    assert await registered(dry_run=True) == [f"would register {name}"]
    bench.lab.set(consumer_seconds=0.2)
    assert await registered() == [f"registered, {name}"]
    assert await registered() == [f"exists, {name}"]
    facts = {fact.name: fact for fact in await bench.facts()}
    assert facts["fan-out"].found == f"Shards are pushed to consumer {name}."
    assert facts["stream may be read"].status is Status.OK
    bench.lab.set(consumer_seconds=3600)
    assert (await fan_out()).found == f"Consumer {name} of Kinesis stream changes in eu is CREATING."
    bench.lab.set(consumer_seconds=0)
    bench.lab.fault("error", operations=["SubscribeToShard"], code="AccessDeniedException", status=400)
    (denied,) = [fact for fact in await bench.facts() if fact.name == "stream may be read"]
    assert (denied.is_wrong, "kinesis:SubscribeToShard on its consumer" in denied.remedy) == (True, True)
    bench.lab.clear()
    await bench.call("deregister_stream_consumer", StreamARN=ARN, ConsumerName=name)
    for number in range(20):
        await bench.call("register_stream_consumer", StreamARN=ARN, ConsumerName=f"other-{number}")
    (refused,) = await registered()
    assert refused.startswith("Kinesis stream changes in eu takes no more consumers: it may have 20,")


async def test_troubles_of_a_stream_are_one_sentence_and_a_remedy_each(bench: Bench) -> None:
    await bench.init()
    dynamodb: Any = bench.places["eu"].dynamodb

    async def update(precision: str) -> None:
        await dynamodb.update_kinesis_streaming_destination(
            TableName="orders",
            StreamArn=ARN,
            UpdateKinesisStreamingConfiguration={"ApproximateCreationDateTimePrecision": precision},
        )

    await update("MILLISECOND")
    coarse = await bench.stream()
    assert (coarse.is_wrong, coarse.kind) == (True, StreamUnusable)
    assert "with times in milliseconds" in coarse.found
    assert await bench.init() == [coarse.found]
    accepted = {fact.name: fact for fact in await bench.facts(bench.rule(precision="millisecond"))}
    assert accepted["stream"].status is Status.OK
    assert accepted["order"].status is Status.WARNING
    await update("MICROSECOND")
    await dynamodb.disable_kinesis_streaming_destination(TableName="orders", StreamArn=ARN)
    assert (await bench.stream()).found == (
        "Kinesis stream changes as a destination of table orders in eu is DISABLED."
    )
    bench.lab.fault("error", operations=["ListShards"], code="AccessDeniedException", status=400)
    await dynamodb.enable_kinesis_streaming_destination(TableName="orders", StreamArn=ARN)
    (denied,) = [fact for fact in await bench.facts() if fact.name == "stream may be read"]
    assert (denied.is_wrong, "kinesis:ListShards" in denied.remedy) == (True, True)
    bench.lab.clear()
    await bench.call("delete_stream", StreamName="changes")
    gone = await bench.stream()
    assert (gone.is_wrong, gone.found) == (True, "There is no Kinesis stream changes in eu.")
    assert await bench.init() == ["There is no Kinesis stream changes in eu."]
