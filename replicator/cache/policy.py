"""The options of a cache-aside reader, and what follows from them for one read."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from replicator.cache.codecs import JSON, Codec
from replicator.cache.reading import Look, ReadPlan, Seen, Sight
from replicator.domain.key_templates import KeyTemplate

Seconds = float | timedelta
MOST_TAGS: Final = 16
OUTAGES: Final = (RedisConnectionError, RedisTimeoutError, OSError)
"""What says that the server is away; any other error is about the command."""


@dataclass(frozen=True, slots=True)
class Policy:
    """The options of a reader, checked."""

    template: KeyTemplate
    codec: Codec
    ttl_seconds: float
    jitter: float
    negative_seconds: float
    lease_seconds: float
    wait_seconds: float
    early_seconds: float
    raises: bool
    when: Callable[[Any], bool] | None
    tags: tuple[KeyTemplate, ...]

    @classmethod
    def of(  # noqa: PLR0913 - the options that callers name
        cls,
        *,
        key: str,
        prefix: str = "",
        load: Callable[..., Any],
        codec: Codec | None = None,
        ttl: Seconds = 300.0,
        jitter: float = 0.1,
        negative_ttl: Seconds = 0.0,
        lease: Seconds = 5.0,
        wait: Seconds = 0.5,
        early_refresh: Seconds = 0.0,
        raise_errors: bool = False,
        when: Callable[[Any], bool] | None = None,
        tags: Sequence[str] = (),
    ) -> Policy:
        """The options as callers give them; ValueError names the one that makes no sense."""
        template, *tagged = (_template(text, prefix) for text in (key, *tags))
        if tagged and (early_refresh or negative_ttl):
            raise ValueError("early_refresh and negative_ttl must be 0 of an entry under tags")
        if len(tagged) > MOST_TAGS:
            raise ValueError(f"an entry has {MOST_TAGS} tags at most")
        least = {"ttl": (ttl, 0.001), "lease": (lease, 0.001), "negative_ttl": (negative_ttl, 0.0)}
        least |= {"wait": (wait, 0.0), "early_refresh": (early_refresh, 0.0)}
        seconds = {name: _seconds(given) for name, (given, _) in least.items()}
        for name, (_, minimum) in least.items():
            if not minimum <= seconds[name] < math.inf:
                raise ValueError(f"{name} must be at least {minimum} s")
        if not 0 <= jitter < 1:
            raise ValueError("jitter must be a share from 0 to below 1")
        carried: Codec = getattr(load, "codec", JSON) if codec is None else codec
        if carried.hashed and (early_refresh or tagged):
            raise ValueError("early_refresh must be 0, and tags none, of an entry that is a hash")
        return cls(
            template=template,
            codec=carried,
            ttl_seconds=seconds["ttl"],
            jitter=jitter,
            negative_seconds=seconds["negative_ttl"],
            lease_seconds=seconds["lease"],
            wait_seconds=seconds["wait"],
            early_seconds=seconds["early_refresh"],
            raises=raise_errors,
            when=when,
            tags=tuple(tagged),
        )

    def key(self, values: Mapping[str, Any]) -> str:
        """The cache key of these attributes, as the daemon writes it."""
        return self._keys(values)[0]

    def _keys(self, values: Mapping[str, Any]) -> list[str]:
        """The keys of the entry and of its tags."""
        templates = (self.template, *self.tags)
        needed = dict.fromkeys(name for template in templates for name in template.attributes)
        if values.keys() ^ needed.keys():
            raise TypeError(f"the key {self.template.template!r} needs {', '.join(needed)}")
        texts = {name: _text(name, value) for name, value in values.items()}
        return [key for template in templates if (key := template.filled(texts)) is not None]

    def plan(self, values: Mapping[str, Any], *, token: str, dice: Callable[[], float]) -> ReadPlan:
        """One read; `dice` gives numbers from 0 to below 1.

        An entry is renewed early by chance: the closer its end, the likelier, and on average `early_refresh` before.
        """
        life = 1 - self.jitter * dice()
        early = -math.log(1 - dice()) * self.early_seconds
        key, *tags = self._keys(values)
        return ReadPlan(
            key=key,
            token=token,
            codec=self.codec,
            life_ms=max(1, int(1000 * self.ttl_seconds * life)),
            negative_ms=math.ceil(1000 * self.negative_seconds * life),
            lease_ms=max(1, int(1000 * self.lease_seconds)),
            early_ms=math.ceil(1000 * self.ttl_seconds) if tags else int(1000 * early),
            tags=tuple(tags),
            wait_seconds=self.wait_seconds,
            when=self.when,
        )


def seen(reply: Any) -> Seen:
    """What the server says about a key."""
    said, entry, lease = (part.encode() if isinstance(part, str) else part for part in (*reply, b"", b"")[:3])
    return Seen(Sight(said.decode()), entry, lease.decode())


def missed(request: Any) -> Seen | None:
    """The answer in place of one that the cache owes."""
    return Seen(Sight.DOWN) if isinstance(request, Look) else None


def _template(text: str, prefix: str) -> KeyTemplate:
    try:
        return KeyTemplate(text, prefix)
    except ValueError as error:
        raise ValueError(f"key {text!r} {error}") from None


def _seconds(given: Seconds) -> float:
    return given.total_seconds() if isinstance(given, timedelta) else float(given)


def _text(name: str, value: Any) -> str:
    """A key attribute in the text that DynamoDB JSON has for it."""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise TypeError(f"{name} must be str, int or bytes, not {type(value).__name__}")
