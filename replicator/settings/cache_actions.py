"""Cache actions as the configuration writes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from replicator.domain.key_templates import KeyTemplate
from replicator.settings.filters import ItemConditions
from replicator.settings.sections import Cache
from replicator.settings.values import AttributeName, ByteSize, Duration, Frozen, Integer, Name, share

_LIVES = ("ttl", "jitter", "marker_ttl", "max_bytes")
_SHAPES = ("value", "numbers", "attributes")
_TELLS = ("channel", "stream", "maxlen", "values")

Published = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[!-z|~]+$")]
"""Name of a channel or stream: without braces, which would choose its slot in a cluster."""


Share = Annotated[float, Field(ge=0, lt=1), BeforeValidator(share, json_schema_input_type=float | str)]


class CacheAction(Frozen):
    """What happens to a cache entry when its item changed."""

    cache: Name
    key: str = Field(min_length=1, description="template over attributes, for example order:{pk}")
    action: Literal["invalidate", "refresh", "write_through", "publish"] = "invalidate"
    ttl: Duration | None = Field(default=None, description="of actions that store: life of an entry, default 1h")
    jitter: Share = Field(default=0.0, description="share by which ttl is shortened, another one for each entry: 10%")
    marker_ttl: Duration | None = Field(default=None, description="life of the marker of a deleted item; default: ttl")
    value: Literal["dynamodb_json", "json", "msgpack", "hash"] = Field(
        default="dynamodb_json", description="what is stored"
    )
    numbers: Literal["string", "number"] = Field(default="string", description="of json and msgpack")
    attributes: list[AttributeName] = Field(default=[], description="what is stored of an item; default: everything")
    max_bytes: ByteSize | None = Field(default=None, description="a larger value is dropped instead of stored")
    channel: Published | None = Field(default=None, description="publish only: the channel to publish on")
    stream: Published | None = Field(default=None, description="publish only: the stream, in place of a channel")
    maxlen: Integer = Field(
        default=10_000, ge=1, le=100_000_000, description="about how many messages the stream keeps"
    )
    values: bool = Field(default=False, description="publish only: messages show the item")
    when: ItemConditions | None = Field(default=None, description="only items that pass have these entries")

    @property
    def stores(self) -> bool:
        """Whether entries hold what items hold."""
        return self.action in {"refresh", "write_through"}

    def template(self, caches: Mapping[str, Cache]) -> KeyTemplate:
        """The key template, with the prefix of the cache."""
        cache = caches.get(self.cache)
        return KeyTemplate(self.key, "" if cache is None else cache.prefix)

    @model_validator(mode="after")
    def _template(self) -> Self:
        try:
            KeyTemplate(self.key)
        except ValueError as error:
            raise ValueError(f"key template {self.key!r} {error}") from error
        return self

    @model_validator(mode="after")
    def _options_of_the_action(self) -> Self:
        of_action = {
            "the actions refresh and write_through": (_LIVES, self.stores),
            "the actions refresh and write_through, and to publish with values": (_SHAPES, self.stores or self.values),
            "action publish": (_TELLS, self.action == "publish"),
            "a stream": (("maxlen",), self.stream is not None),
            "value json, msgpack and hash": (("numbers",), self.value != "dynamodb_json"),
        }
        for what, (names, fits) in of_action.items():
            for name in names:
                if name in self.model_fields_set and not fits:
                    raise ValueError(f"{name} belongs to {what}")
        return self

    @model_validator(mode="after")
    def _one_place_to_tell(self) -> Self:
        if self.action == "publish" and (self.channel is None) == (self.stream is None):
            raise ValueError("action publish needs a channel or a stream")
        if self.values and self.value in {"msgpack", "hash"}:
            raise ValueError(f"messages are JSON, so value {self.value} is not for publish")
        return self
