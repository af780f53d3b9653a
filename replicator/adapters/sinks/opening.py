"""The sinks of a configuration, opened together and closed together; nothing is sent yet."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from replicator.adapters.sinks.aws import AwsSink as ServiceSink
from replicator.adapters.sinks.aws_services import SERVICES
from replicator.adapters.sinks.oversize import BucketOfData
from replicator.settings import AwsSink, RedisStreamSink, WebhookSink
from replicator.settings.compiled_rules import event_shape, region_of_sink
from replicator.settings.events import signing_key

if TYPE_CHECKING:
    from replicator.adapters.aws.clients import Place
    from replicator.adapters.sinks.redis_stream import Streams
    from replicator.ports.clock import Clock
    from replicator.ports.targets import Sink
    from replicator.settings import EventSink, Settings

SinkId = tuple[str, str, str]
"""(rule, region, sink): one for all tables of a rule that chooses them."""


def sinks_of(settings: Settings) -> dict[SinkId, EventSink]:
    """Every sink of the rules; of a mesh one may be in each of its regions."""
    return {
        (rule.name, region_of_sink(settings, sink, home), sink.sink_name): sink
        for rule in settings.rules
        for sink in rule.events
        for home in rule.regions_read
    }


def shown(sink: EventSink, region: str) -> str:
    """A sink as sentences name it."""
    return f"{sink.to} {sink.place}" + (f" in {region}" if isinstance(sink, AwsSink) else "")


@asynccontextmanager
async def open_sinks(
    settings: Settings, places: Mapping[str, Place], caches: Mapping[str, Streams], clock: Clock
) -> AsyncIterator[dict[SinkId, Sink]]:
    """Sinks by rule and name. Clients of one service are shared by the sinks of a region."""
    clients: dict[tuple[str, str], Any] = {}
    sinks: dict[SinkId, Sink] = {}
    async with AsyncExitStack() as stack:
        wanted = sinks_of(settings)
        uses = [(sink.to, region) for (_, region, _), sink in wanted.items() if isinstance(sink, AwsSink)]
        webhooks: dict[tuple[str, str], Sink] = {}  # an address is in no region: it is one for all of a mesh
        buckets = {rule.name: rule.region_of_bucket for rule in settings.rules}
        opened_s3: dict[str, Any] = {}
        for name, sink in wanted.items():
            rule, region, own = name
            shape, where = event_shape(settings, sink), shown(sink, region)
            objects = None
            if sink.oversize is not None and (there := buckets[rule](sink)) is not None:
                if there not in opened_s3:
                    opened_s3[there] = await stack.enter_async_context(places[there].s3())
                bucket = sink.oversize.s3
                objects = BucketOfData(opened_s3[there], bucket.bucket, bucket.folder, sink.oversize.above)
            if isinstance(sink, AwsSink):
                service = SERVICES[sink.to]
                if (sink.to, region) not in clients:
                    most = service.at_once * uses.count((sink.to, region))
                    opened = places[region].service(service.client, most)
                    clients[sink.to, region] = await stack.enter_async_context(opened)
                sinks[name] = ServiceSink(service, clients[sink.to, region], address(sink), shape, where, objects)
            elif isinstance(sink, RedisStreamSink):
                from replicator.adapters.sinks.redis_stream import RedisStreamSink as StreamSink

                sinks[name] = StreamSink(caches[sink.cache], sink.stream, sink.max_length, shape, where, objects)
            else:
                if (rule, own) not in webhooks:
                    webhooks[rule, own] = await _webhook(settings, sink, where, objects, stack, clock)
                sinks[name] = webhooks[rule, own]
        yield sinks


def address(sink: EventSink) -> str:
    """What a sink of AWS is named by in requests."""
    for member in ("queue", "topic", "bus", "stream"):
        found = getattr(sink, member, None)
        if found is not None:
            return str(found)
    raise AssertionError(sink.to)


async def _webhook(  # noqa: PLR0913, PLR0917 - a composition root fills it once
    settings: Settings,
    sink: WebhookSink,
    where: str,
    objects: BucketOfData | None,
    stack: AsyncExitStack,
    clock: Clock,
) -> Sink:
    from replicator.adapters.sinks.webhook import WebhookSink as Webhook
    from replicator.adapters.sinks.webhook import open_session

    session = open_session(
        connections=sink.concurrency,
        connect_seconds=settings.apply.connect_timeout.total_seconds(),
        read_seconds=sink.timeout.total_seconds(),
        private=sink.allow_private,
    )
    await stack.enter_async_context(session)
    return Webhook(
        session,
        sink.url.get_secret_value(),
        where=where,
        key=signing_key(settings.secrets[sink.secret]),
        shape=event_shape(settings, sink),
        at_once=sink.concurrency,
        clock=clock,
        objects=objects,
    )
