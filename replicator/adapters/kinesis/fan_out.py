"""Shards that Kinesis pushes to a consumer (enhanced fan-out): a subscription for each, taken up and renewed.

Invariant: what is given behind a place is everything that comes next there. A subscription knows up to which record
it has given what it got; it is read for places at or behind that one, without what they have, and for no other. Where
there is none for a place, or not now, the answer is None, and the caller polls: no reader waits for a subscription.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from zlib import crc32

import aiohttp
import msgspec
from botocore.eventstream import ParserError
from botocore.exceptions import ClientError

from replicator.adapters.aws.clients import MOST_SUBSCRIPTIONS
from replicator.adapters.aws.errors import CLIENT_ERRORS, error_code, translate
from replicator.adapters.kinesis.consumers import consumer_problem, described
from replicator.adapters.kinesis.destinations import stream_name
from replicator.adapters.kinesis.wire import Pushed, parse_pushed
from replicator.domain.errors import MalformedRecord, ReplicatorError, Throttled, Unreachable
from replicator.domain.values import replace

if TYPE_CHECKING:
    from botocore.eventstream import EventStreamMessage

    from replicator.adapters.aws.clients import Events, Place
    from replicator.domain.identifiers import SequenceNumber

_FAILURES_IN_SILENCE = 3
"""So many subscriptions in a row may fail, for reasons that pass, before that is an error."""

_IN_USE, _NOT_FOUND = "ResourceInUseException", "ResourceNotFoundException"
_BROKEN = (aiohttp.ClientError, ParserError, OSError, TimeoutError)


class Pace(msgspec.Struct, frozen=True):
    """How long things last, in seconds.

    `waits`: how long an event is waited for at a time. `taken`: so long after a subscription was made no other one of
    its shard can be; what failed rests for that, and for `rests` at most. `renewed`: a subscription lives for 300, and
    is renewed at this age, or up to a tenth earlier. `unread`: what is not asked for so long is closed: its shard is
    read elsewhere now, or its reader has no room. `sound`: what lasted for so long was no failure.

    `looks`: a shard that is quiet is asked so long after its last record, and then so often: what is pushed does not
    say when it was sent, so only an answer shows up to when a shard was read. `described`: so often the stream is asked
    how long it keeps records. `lives`: so long an iterator may lie unused, as those of Kinesis do.
    """

    waits: float = 0.5
    taken: float = 5.0
    rests: float = 60.0
    renewed: float = 270.0
    unread: float = 30.0
    sound: float = 30.0
    looks: tuple[float, float] = (1.0, 5.0)
    described: float = 60.0
    lives: float = 300.0


class _Subscription(msgspec.Struct, eq=False):
    """One shard's. Times are those of the loop."""

    events: Events | None = None
    had: int = 0
    """The record up to which everything was given, as a number."""
    continues: str | None = None
    """Where it goes on: nothing lies between that record and this number."""
    began_at: float = float("-inf")
    renew_at: float = 0.0
    retry_at: float = 0.0
    failures: int = 0
    asked_at: float = 0.0
    moved_at: float = 0.0
    """When something came last."""
    looked_at: float = 0.0
    """When the shard was last asked because it is quiet."""
    turn: asyncio.Lock = msgspec.field(default_factory=asyncio.Lock)

    def close(self) -> None:
        if self.events is not None:
            self.events.close()
            self.events = None

    def quiet(self, looks: tuple[float, float]) -> Pushed:
        """Nothing comes for a moment; the caller asks now and then."""
        now, (first, again) = _now(), looks
        asks = now >= max(self.moved_at + first, self.looked_at + again)
        if asks:
            self.looked_at = now
        return Pushed(asks=asks)


class FanOut:
    """The subscriptions of one consumer."""

    def __init__(self, place: Place, stream_arn: str, consumer: str, pace: Pace) -> None:
        self._pace = pace
        self._place = place
        self._stream_arn = stream_arn
        self._consumer = consumer
        self._arn: str | None = None
        self._of_shards: dict[str, _Subscription] = {}

    @property
    def open(self) -> int:
        """How many subscriptions there are now."""
        return sum(one.events is not None for one in self._of_shards.values())

    async def after(self, shard_id: str, sequence: SequenceNumber | None) -> Pushed | None:
        """What is pushed behind a record, or from the oldest one on; nothing, when nothing comes for a moment.

        None: there is no subscription for that place now. Raises what keeps the shard from being subscribed to.
        """
        own = self._of_shards.setdefault(shard_id, _Subscription())
        if own.turn.locked():
            return None
        async with own.turn:
            own.asked_at = _now()
            had = int(sequence or 0)
            if own.events is not None and own.had > had:
                return None
            if own.events is not None and _now() >= own.renew_at:
                own.close()
            if own.events is None and not await self._subscribe(own, shard_id, had, sequence):
                return None
            return await self._next(own, shard_id, had)

    # -- subscribing ---------------------------------------------------------------------------------------------------

    async def _subscribe(self, own: _Subscription, shard_id: str, had: int, sequence: SequenceNumber | None) -> bool:
        """Subscribe to a shard, if it is time; returns whether it is subscribed to."""
        if _now() < max(own.retry_at, own.began_at + self._pace.taken) or self.open >= MOST_SUBSCRIPTIONS:
            return False
        if own.continues is None or had < own.had or int(own.continues) < had:
            own.continues = sequence
        what = self._what(shard_id)
        where = {"Type": "TRIM_HORIZON"}
        if own.continues is not None:
            where = {"Type": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": own.continues}
        try:
            consumer = await self._consumer_arn()
            events = await self._place.kinesis.subscribe(ConsumerARN=consumer, ShardId=shard_id, StartingPosition=where)
        except ClientError as error:
            if error_code(error) == _NOT_FOUND:
                self._arn = None
            return self._failed(own, _translated(error, what), passes=error_code(error) in {_IN_USE, _NOT_FOUND})
        except CLIENT_ERRORS as error:
            return self._failed(own, translate(error, what), passes=True)
        except ReplicatorError as error:
            return self._failed(own, error, passes=False)
        own.events, own.had = events, had
        own.began_at = own.moved_at = _now()
        own.renew_at = own.began_at + self._pace.renewed * (0.9 + 0.1 * (crc32(shard_id.encode()) % 64) / 64)
        asyncio.get_running_loop().call_later(self._pace.unread, self._close_unread, shard_id, own, own.events)
        return True

    async def _consumer_arn(self) -> str:
        if self._arn is None:
            found = await described(self._place, self._stream_arn, self._consumer)
            name = stream_name(self._stream_arn)
            wrong = consumer_problem(found, self._consumer, name, self._place.region_id)
            if wrong is not None:
                raise wrong
            assert found is not None, "what is missing is a problem"
            self._arn = found.arn
        return self._arn

    def _close_unread(self, shard_id: str, own: _Subscription, events: Events) -> None:
        if own.events is not events:
            return
        if own.turn.locked() or _now() - own.asked_at < self._pace.unread:
            asyncio.get_running_loop().call_later(self._pace.unread, self._close_unread, shard_id, own, events)
        else:
            own.close()
            self._of_shards.pop(shard_id, None)

    def _failed(self, own: _Subscription, error: ReplicatorError, *, passes: bool) -> bool:
        """A subscription failed: rest a while; raise it unless it may pass by itself and is not yet the fourth."""
        own.close()
        own.failures += 1
        own.retry_at = _now() + min(self._pace.rests, self._pace.taken * 2 ** (own.failures - 1))
        if own.failures > _FAILURES_IN_SILENCE or not (passes or isinstance(error, Throttled)):
            raise error
        return False

    def _what(self, shard_id: str) -> str:
        return (
            f"SubscribeToShard on shard {shard_id} of Kinesis stream {stream_name(self._stream_arn)}"
            f" in {self._place.region_id}"
        )

    # -- events --------------------------------------------------------------------------------------------------------

    async def _next(self, own: _Subscription, shard_id: str, had: int) -> Pushed | None:
        assert own.events is not None, "it is subscribed to"
        what = self._what(shard_id)
        try:
            async with asyncio.timeout(self._pace.waits):
                message = await own.events.message()
        except TimeoutError as error:
            if not isinstance(error, aiohttp.ServerTimeoutError):
                return own.quiet(self._pace.looks)
            self._broke(own, error, what)
            return None
        except _BROKEN as error:
            self._broke(own, error, what)
            return None
        if message is None:  # its five minutes are over, or the other side left
            own.close()
            return Pushed()
        if (code := _exception(message)) is not None:
            if code == _NOT_FOUND:
                self._arn = None
            said = ClientError({"Error": {"Code": code, "Message": _text(message)}}, "SubscribeToShard")
            self._failed(own, _translated(said, what), passes=code in {_IN_USE, _NOT_FOUND})
            return None
        pushed = self._given(own, message, had, what)
        if pushed is not None and pushed.ended:
            own.close()
            self._of_shards.pop(shard_id, None)
        return pushed

    def _broke(self, own: _Subscription, error: Exception, what: str) -> None:
        said = str(error)[:200] or type(error).__name__
        self._failed(own, Unreachable(f"{what} broke off: {said.rstrip('. ')}."), passes=True)

    def _given(self, own: _Subscription, message: EventStreamMessage, had: int, what: str) -> Pushed | None:
        try:
            pushed = parse_pushed(message.payload, what)
        except (MalformedRecord, Unreachable) as error:
            self._failed(own, error, passes=True)
            return None
        own.continues = pushed.continues
        if pushed.records:
            own.had = int(pushed.records[-1].sequence)
        if pushed.records or pushed.behind_ms:
            own.moved_at = _now()
        if _now() - own.began_at > self._pace.sound:
            own.failures = 0
        new = tuple(record for record in pushed.records if int(record.sequence) > had)
        if not new and not pushed.ended and not pushed.behind_ms:
            return own.quiet(self._pace.looks)
        return replace(pushed, records=new)


def _exception(message: EventStreamMessage) -> str | None:
    """The code of a message that says what went wrong; None of any other."""
    headers: Any = message.headers
    kind = headers.get(":message-type")
    if kind == "event":
        return None
    return str(headers.get(":exception-type") or headers.get(":error-code") or kind)


def _text(message: EventStreamMessage) -> str:
    try:
        return str(msgspec.json.decode(message.payload).get("message", ""))
    except (msgspec.DecodeError, AttributeError):
        headers: Any = message.headers
        return str(headers.get(":error-message", ""))


def _translated(error: ClientError, what: str) -> ReplicatorError:
    if error_code(error) == _IN_USE:
        return Throttled(
            f"{what} is refused: another reader has the subscription.",
            advice="Each group of workers needs a name of its own; shards are polled meanwhile.",
        )
    return translate(error, what)


def _now() -> float:
    return asyncio.get_running_loop().time()
