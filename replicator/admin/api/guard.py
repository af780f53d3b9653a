"""Which request may go on: by its Host and Origin, its token, and how often its address guessed a token wrong.

Invariant: a token is compared by its digest, in a time that does not depend on it, with every token that there is; and
an address that guesses is answered no faster than tokens are refilled, whatever it guesses.
"""

from __future__ import annotations

import hmac
from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from ipaddress import ip_address
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from pydantic import SecretStr

if TYPE_CHECKING:
    from replicator.settings import Api

_SCHEME = "bearer"
_BURST, _REFILL_SECONDS, _MOST_ADDRESSES = 10.0, 2.0, 1024
_LOCAL = frozenset({"localhost"})
_OWN = frozenset({None, "same-origin", "none"})


@dataclass(frozen=True, slots=True)
class Caller:
    """What sent a request: the name of its token, None without one; what it may do; and its address."""

    name: str | None
    access: Literal["none", "read", "write"]
    address: str

    @property
    def may_write(self) -> bool:
        """Whether it may change anything."""
        return self.access == "write"


@dataclass(slots=True)
class Guesses:
    """Wrong tokens by address: ten at once, then one every two seconds; of so many addresses as fit."""

    _left: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict)
    """What an address may guess still, as of when."""

    def wait(self, address: str, now: float) -> float:
        """Seconds until a token of this address is looked at again; 0: now."""
        left = self._now(address, now)
        return 0.0 if left >= 1 else (1 - left) * _REFILL_SECONDS

    def wrong(self, address: str, now: float) -> None:
        """It guessed wrong."""
        self._left[address] = (self._now(address, now) - 1, now)
        self._left.move_to_end(address)
        if len(self._left) > _MOST_ADDRESSES:
            self._left.popitem(last=False)

    def _now(self, address: str, now: float) -> float:
        left, at = self._left.get(address, (_BURST, now))
        return min(_BURST, left + (now - at) / _REFILL_SECONDS)


class Tokens:
    """The tokens of a configuration, as digests."""

    def __init__(self, api: Api, secrets: Mapping[str, SecretStr]) -> None:
        self._known = [
            (name, token.access, _digest(secrets[token.secret].get_secret_value()))
            for name, token in api.tokens.items()
        ]

    def holder(self, offered: str, address: str) -> Caller | None:
        """The one whose token it is; None when it is none."""
        digest, found = _digest(offered), None
        for name, access, known in self._known:  # to the end, whichever it is
            if hmac.compare_digest(digest, known):
                found = Caller(name, access, address)
        return found


def _digest(token: str) -> bytes:
    return sha256(token.encode(errors="surrogatepass")).digest()


def token_in(authorization: str | None) -> str | None:
    """What the Authorization header offers; empty when it is there and offers no bearer token."""
    if authorization is None:
        return None
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == _SCHEME else ""


def is_own_host(host: str, names: Collection[str]) -> bool:
    """Whether a Host is an address, or a name by which this server is known: a page that rebinds a name has neither."""
    name = _name(f"//{host}")
    if name is None:
        return False
    try:
        ip_address(name)
    except ValueError:
        return name.removesuffix(".") in _LOCAL or name.removesuffix(".") in names
    return True


def is_own_page(host: str, origin: str | None, site: str | None) -> bool:
    """Whether a browser sent it on behalf of a page of this server, or no browser did."""
    if site not in _OWN:
        return False
    return origin is None or (urlsplit(origin).scheme in {"http", "https"} and urlsplit(origin).netloc == host)


def _name(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
