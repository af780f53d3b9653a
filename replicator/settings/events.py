"""Event sinks of a rule as the configuration writes them, one model per service."""

from __future__ import annotations

import binascii
from abc import abstractmethod
from base64 import b64decode
from datetime import timedelta
from ipaddress import ip_address
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    SecretStr,
    StringConstraints,
    field_validator,
    model_validator,
)

from replicator.domain.addresses import host_and_port
from replicator.settings.filters import FilterSettings
from replicator.settings.transforms import TransformSettings
from replicator.settings.values import Duration, Frozen, Integer, Name, RegionName, no_truth

_ServiceName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]+$", max_length=128)]


_KEY_MARK = "whsec_"
_S3 = "s3://"


class Bucket(Frozen):
    """A place in S3."""

    bucket: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")]
    prefix: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9!_.*'()/=-]*$", max_length=512)] = Field(
        default="", description="what the keys of objects begin with"
    )
    region: RegionName | None = Field(
        default=None, description="id of the region where it is; default: the sink's, else the first that is read"
    )

    @property
    def folder(self) -> str:
        """What keys begin with, up to the last slash."""
        return f"{self.prefix.rstrip('/')}/" if self.prefix.rstrip("/") else ""


def _bucket(value: object) -> object:
    """`s3://bucket/prefix` is short for both."""
    if isinstance(value, str) and value.startswith(_S3):
        bucket, _, prefix = value.removeprefix(_S3).partition("/")
        return {"bucket": bucket, "prefix": prefix}
    return value


class OversizeSettings(Frozen):
    """Where an event goes that is longer than its sink takes; the sink gets where it is."""

    s3: Annotated[Bucket, BeforeValidator(_bucket, json_schema_input_type=str | Bucket)] = Field(
        description="a bucket and a prefix, or s3://bucket/prefix"
    )
    above: Annotated[int, Field(ge=1024), BeforeValidator(no_truth)] | None = Field(
        default=None, description="bytes of an event from which on it goes there; default: what the sink takes"
    )


class _Sink(Frozen):
    """What every sink says."""

    to: str
    name: Name | None = Field(default=None, description="its identity in the rule; default: the kind and the place")
    region: RegionName | None = Field(
        default=None, description="where the service is; default: where the change was made"
    )
    format: Literal["plain", "dynamodb"] = Field(default="plain", description="how items are shown in `data`")
    numbers: Literal["string", "number"] = Field(
        default="string", description="plain only: as text, or as JSON numbers, of which many readers lose digits"
    )
    transform: TransformSettings | None = Field(
        default=None, description="how items are shown, when that is not as they are"
    )
    filter: FilterSettings = Field(default=FilterSettings(), description="beside that of the rule: both must hold")
    oversize: OversizeSettings | None = Field(
        default=None, description="what becomes of an event that is longer than the sink takes; default: it is parked"
    )

    @property
    @abstractmethod
    def place(self) -> str:
        """Where it goes, as its default name says."""

    @property
    def sink_name(self) -> str:
        """Its identity in the rule."""
        return self.name or f"{self.to}:{self.place}"


class SqsSink(_Sink):
    """A queue of SQS, standard or FIFO."""

    to: Literal["sqs"]
    queue: Annotated[str, StringConstraints(pattern=r"^(https?://\S+|[A-Za-z0-9_-]{1,80}(\.fifo)?)$")] = Field(
        description="name or URL; order is kept by queues whose name ends in .fifo"
    )

    @property
    def place(self) -> str:
        """Its name."""
        return self.queue.rstrip("/").rpartition("/")[2]


class SnsSink(_Sink):
    """A topic of SNS, standard or FIFO."""

    to: Literal["sns"]
    topic: Annotated[str, StringConstraints(pattern=r"^arn:[^\s:]+:sns:[^\s:]*:[^\s:]*:[A-Za-z0-9_.-]+$")] = Field(
        description="ARN; order is kept by topics whose name ends in .fifo"
    )

    @property
    def place(self) -> str:
        """Its name."""
        return self.topic.rpartition(":")[2]


class EventBridgeSink(_Sink):
    """A bus of EventBridge, which keeps no order."""

    to: Literal["eventbridge"]
    bus: _ServiceName = "default"

    @property
    def place(self) -> str:
        """Its name."""
        return self.bus


class KinesisSink(_Sink):
    """A Kinesis data stream."""

    to: Literal["kinesis"]
    stream: _ServiceName

    @property
    def place(self) -> str:
        """Its name."""
        return self.stream


class FirehoseSink(_Sink):
    """A delivery stream of Firehose; every event ends in a line feed."""

    to: Literal["firehose"]
    stream: _ServiceName

    @property
    def place(self) -> str:
        """Its name."""
        return self.stream


class RedisStreamSink(_Sink):
    """A stream of a Redis or Valkey that `caches` names."""

    to: Literal["redis_stream"]
    cache: Name = Field(description="one of caches, whose address and credentials are used")
    stream: str = Field(min_length=1, max_length=512, description="key of the stream")
    max_length: Annotated[int, Field(ge=1000), BeforeValidator(no_truth)] | None = Field(
        default=None, description="about how many events it keeps; default: all, so a consumer has to trim it"
    )

    @property
    def place(self) -> str:
        """Its key."""
        return self.stream


def _is_private(host: str) -> bool:
    if host == "localhost" or host.endswith((".localhost", ".local", ".internal")):
        return True
    try:
        return not ip_address(host).is_global
    except ValueError:
        return False


def signing_key(secret: SecretStr) -> bytes:
    """The key that a secret stands for: what `whsec_` is followed by in base64, else its bytes.

    ValueError when it is empty or no base64; its text is in no error.
    """
    text = secret.get_secret_value()
    try:
        key = b64decode(text.removeprefix(_KEY_MARK), validate=True) if text.startswith(_KEY_MARK) else text.encode()
    except binascii.Error:
        raise ValueError("must be base64 behind whsec_") from None
    if not key:
        raise ValueError("must not be empty")
    return key


class WebhookSink(_Sink):
    """An address that takes one event a request, signed as the Standard Webhooks say."""

    to: Literal["webhook"]
    url: SecretStr = Field(description="https://host/path; it is never logged, since a path may be a secret")
    secret: Name = Field(description="one of secrets: whsec_ and base64, or any text, as the key of the signature")
    timeout: Duration = Field(default=timedelta(seconds=10), description="longest wait for an answer")
    concurrency: Integer = Field(default=16, ge=1, le=256, description="requests at the same time")
    allow_private: bool = Field(
        default=False, description="let it be a private or loopback address, and http:// beside https://"
    )

    @field_validator("url")
    @classmethod
    def _is_url(cls, url: SecretStr) -> SecretStr:
        try:
            parts = urlsplit(url.get_secret_value())
            named = parts.hostname and parts.port != 0
        except ValueError:
            named = None
        if not named or parts.scheme not in {"http", "https"} or parts.fragment:
            raise ValueError("must be a URL, for example https://hooks.example.com/orders")
        if parts.username or parts.password:
            raise ValueError("must not contain a user or a password; requests are signed")
        return url

    @model_validator(mode="after")
    def _may_be_used(self) -> Self:
        parts = urlsplit(self.url.get_secret_value())
        if not self.allow_private and (parts.scheme == "http" or _is_private(parts.hostname or "")):
            raise ValueError("must have an https:// url of a public host, unless it sets allow_private: true")
        return self

    @property
    def place(self) -> str:
        """Its host."""
        parts = urlsplit(self.url.get_secret_value())
        return host_and_port(str(parts.hostname), parts.port)


AwsSink = SqsSink | SnsSink | EventBridgeSink | KinesisSink | FirehoseSink
EventSink = Annotated[AwsSink | RedisStreamSink | WebhookSink, Discriminator("to")]
"""One sink; `to` decides which keys it has."""
