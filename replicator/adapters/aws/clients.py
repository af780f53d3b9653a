"""AWS clients per region.

Invariant: endpoint, credentials and role belong to one region of the configuration; nothing process-wide is inherited
but the default credential chain, as the base from which a role is assumed. Clients never retry: every send is decided,
fenced and counted by the caller.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from aiobotocore.config import AioConfig
from aiobotocore.eventstream import AioEventStream
from aiobotocore.parsers import AioResponseParserFactory
from botocore.eventstream import EventStreamBuffer, EventStreamMessage, NoInitialResponseError
from botocore.parsers import ResponseParserError
from msgspec import Struct

from replicator import __version__
from replicator.adapters.aws.credentials import RenewableCredentials, region_session
from replicator.adapters.aws.descriptions import SharedTrust
from replicator.adapters.aws.errors import is_object
from replicator.adapters.aws.row_calls import RowCalls
from replicator.adapters.aws.transport.choice import Choice, choose
from replicator.adapters.aws.wire import Wire

if TYPE_CHECKING:
    from aiobotocore.session import AioSession
    from types_aiobotocore_dynamodb.client import DynamoDBClient
    from types_aiobotocore_dynamodbstreams.client import DynamoDBStreamsClient
    from types_aiobotocore_kinesis.client import KinesisClient

    from replicator.settings import Region

_HTTP_ERRORS = 300
_OBJECTS_AT_ONCE = 4


class ClientTimes(Struct, frozen=True):
    """Bounds of one HTTP exchange, in seconds."""

    connect_seconds: float = 3.0
    read_seconds: float = 10.0


Fallback = Callable[[str, str], None]
"""Called with a region's id and the reason when the stock client serves in place of the lean transport."""


MOST_SUBSCRIPTIONS = 500
"""Shards of one region that are subscribed to at a time; each takes a connection of its own."""

_EVENT_SECONDS = 35.0
"""A subscription that is silent for so long is broken: Kinesis sends an event every few seconds, records or none."""


class KinesisCalls:
    """Clients of Kinesis and calls with bodies of ours, made when they are first asked for: most have none."""

    def __init__(
        self,
        opens: Callable[[], Awaitable[tuple[KinesisClient, Wire]]],
        opens_subscriber: Callable[[], Awaitable[KinesisClient]],
    ) -> None:
        self._opens = opens
        self._opens_subscriber = opens_subscriber
        self._opened: tuple[KinesisClient, Wire] | None = None
        self._subscriber: KinesisClient | None = None
        self._subscriptions: WeakSet[Events] = WeakSet()
        self._turn = asyncio.Lock()

    async def subscriber(self) -> KinesisClient:
        """The client of subscriptions: their answers are streams of events, which hold a connection each."""
        async with self._turn:
            if self._subscriber is None:
                self._subscriber = await self._opens_subscriber()
            return self._subscriber

    async def subscribe(self, **parameters: Any) -> Events:
        """SubscribeToShard: its events, which end with the client at the latest."""
        client: Any = await self.subscriber()
        events: Events = (await client.subscribe_to_shard(**parameters))["EventStream"]
        self._subscriptions.add(events)
        return events

    def close(self) -> None:
        """End all subscriptions."""
        for events in list(self._subscriptions):
            events.close()

    async def opened(self) -> tuple[KinesisClient, Wire]:
        """Both; nothing is sent by that."""
        async with self._turn:
            if self._opened is None:
                self._opened = await self._opens()
            return self._opened


class Place(Struct, frozen=True):
    """The clients of one configured region."""

    region_id: str
    settings: Region
    dynamodb: DynamoDBClient
    streams: DynamoDBStreamsClient
    items: Wire
    """Calls of `dynamodb` with bodies of ours."""
    records: Wire
    """Calls of `streams` with bodies of ours."""
    kinesis: KinesisCalls
    sts: Callable[[], Any]
    """Opens an STS client of this region's identity, for `check`."""
    s3: Callable[[], Any]
    """Opens a client of S3, for exports."""
    service: Callable[[str, int], AbstractAsyncContextManager[Any]]
    """Opens a client of any service, by its name among the endpoints, with at most so many connections."""
    beside: Callable[[int], AbstractAsyncContextManager[DynamoDBClient]]
    """Opens another client of tables with so many connections of its own; its calls about rows go without it."""
    credentials: RenewableCredentials


@asynccontextmanager
async def open_place(  # noqa: PLR0913 - a composition root fills it once
    region_id: str,
    settings: Region,
    times: ClientTimes,
    *,
    connections: int,
    stream_connections: int | None = None,
    lean: Fallback | None = None,
    sessions: dict[str | None, AioSession] | None = None,
) -> AsyncIterator[Place]:
    """Clients for a region; closed together. Nothing is sent before the first call.

    `connections` bound what is asked of tables, `stream_connections` (else the same) what is asked of streams; requests
    beyond them wait for a connection. `lean`: calls with bodies of ours go without the client; where
    they cannot, it is called with the region and the reason. `sessions`: shared with the regions that are opened
    together (`region_session`).
    """
    session, credentials = region_session(region_id, settings, _config(times, 1), sessions=sessions)
    await credentials.load()
    session.register_component("response_parser_factory", _Parsers())
    async with AsyncExitStack() as stack:

        @asynccontextmanager
        async def client(
            service: str, endpoint: object, most: int = connections, within: ClientTimes = times
        ) -> AsyncIterator[Any]:
            url = endpoint or settings.endpoint_url
            made: Any = session.create_client(
                service,  # type: ignore[call-overload]
                region_name=settings.region,
                endpoint_url=None if url is None else str(url).rstrip("/"),
                config=_config(within, most),
            )
            async with made as opened:
                opened.meta.events.register("after-call", credentials.answered)
                yield opened

        def calls(of: Any, most: int) -> Wire:
            async def open_transport(stock: Any) -> Choice:
                ca_bundle = session.get_config_variable("ca_bundle")
                choice = await choose(
                    stock,
                    credentials=credentials,
                    connections=most,
                    connect_seconds=times.connect_seconds,
                    read_seconds=times.read_seconds,
                    ca_bundle=ca_bundle,
                )
                if choice.transport is None and lean is not None:
                    lean(region_id, choice.why_not)
                return choice

            wire = Wire(of, None if lean is None else open_transport, credentials)
            stack.callback(wire.close)
            return wire

        most_of_streams = stream_connections or connections
        dynamodb = await stack.enter_async_context(client("dynamodb", settings.endpoints.dynamodb))
        streams = await stack.enter_async_context(
            client("dynamodbstreams", settings.endpoints.streams, most_of_streams)
        )

        async def open_kinesis() -> tuple[KinesisClient, Wire]:
            kinesis = await stack.enter_async_context(client("kinesis", settings.endpoints.kinesis, most_of_streams))
            return kinesis, calls(kinesis, most_of_streams)

        async def open_subscriber() -> KinesisClient:
            patient = ClientTimes(times.connect_seconds, max(times.read_seconds, _EVENT_SECONDS))
            opened = client("kinesis", settings.endpoints.kinesis, MOST_SUBSCRIPTIONS, patient)
            subscriber: KinesisClient = await stack.enter_async_context(opened)
            stack.callback(kinesis.close)
            return subscriber

        @asynccontextmanager
        async def beside(most: int) -> AsyncIterator[DynamoDBClient]:
            async with client("dynamodb", settings.endpoints.dynamodb, most) as opened:
                rows: Any = RowCalls(opened, calls(opened, most))
                yield rows

        kinesis = KinesisCalls(open_kinesis, open_subscriber)
        yield Place(
            region_id=region_id,
            settings=settings,
            dynamodb=dynamodb,
            streams=streams,
            items=calls(dynamodb, connections),
            records=calls(streams, most_of_streams),
            kinesis=kinesis,
            sts=lambda: client("sts", settings.endpoints.sts),
            s3=lambda: client("s3", settings.endpoints.s3, _OBJECTS_AT_ONCE),
            service=lambda name, most: client(name, getattr(settings.endpoints, name), most),
            beside=beside,
            credentials=credentials,
        )


class _Parsers(AioResponseParserFactory):
    """Parsers for which only a JSON object is an answer, and that fail in one way.

    The client's own take any text for an empty object, and stumble over an answer like `null` in several ways.
    """

    def create_parser(self, protocol_name: str) -> Any:
        """A parser for a protocol; whatever it cannot read is a `ResponseParserError`."""
        parser: Any = super().create_parser(protocol_name)
        parse = parser.parse

        async def strictly(response: Any, shape: Any) -> Any:
            body, succeeded = response["body"], response["status_code"] < _HTTP_ERRORS
            is_plain = isinstance(body, bytes) and (shape is not None or body != b"")  # some say nothing but that
            if protocol_name == "json" and succeeded and is_plain and not is_object(body):
                raise _no_answer(response)
            try:
                parsed = await parse(response, shape)
                code = parsed.get("Error", {}).get("Code", "")
            except (AttributeError, TypeError, LookupError, ValueError) as error:
                raise _no_answer(response) from error
            if not isinstance(code, str):
                raise _no_answer(response)
            return parsed

        parser.parse = strictly
        parser._create_event_stream = _events  # noqa: SLF001 - the parser's way to say what an answer of events is
        return parser


class Events(AioEventStream):  # type: ignore[type-arg]
    """Messages of an answer that is a stream of events. What waits for one may be cancelled: nothing is lost by that.

    Nothing is read ahead but what the connection's buffer takes, so one that does not ask holds the sender up.
    """

    _raw_stream: Any

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self._buffer = EventStreamBuffer()

    async def message(self) -> EventStreamMessage | None:
        """The next message; None when the stream is over. Raises `ParserError`, and what the connection raises."""
        while True:
            try:
                return self._buffer.next()
            except StopIteration:
                chunk = await self._raw_stream.content.readany()
            if not chunk:
                return None
            self._buffer.add_data(chunk)

    async def get_initial_response(self) -> EventStreamMessage:
        """The message that begins every stream."""
        first: Any = await self.message()
        if first is None or first.headers.get(":event-type") != "initial-response":
            raise NoInitialResponseError
        begun: EventStreamMessage = first
        return begun


def _events(response: Any, shape: Any) -> Events:
    return Events(response["body"], shape, None, response["context"].get("operation_name"))


def _no_answer(response: Any) -> ResponseParserError:
    return ResponseParserError(f"an answer with status {response['status_code']} is not one of this service")


def _config(times: ClientTimes, connections: int) -> AioConfig:
    return AioConfig(
        connect_timeout=times.connect_seconds,
        read_timeout=times.read_seconds,
        max_pool_connections=connections,
        parameter_validation=False,
        retries={"total_max_attempts": 1, "mode": "standard"},
        ignore_configured_endpoint_urls=True,
        user_agent=f"replicator/{__version__}",
        tcp_keepalive=True,
        http_session_cls=SharedTrust,
    )
