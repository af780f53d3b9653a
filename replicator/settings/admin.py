"""The admin server: where it listens, and where others reach it.

Invariant: an IPv6 address is written without brackets in the configuration and with them in a URL.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr

from replicator.domain.addresses import host_and_port
from replicator.settings.values import Frozen, Integer, Name

_HOST_NAME = re.compile(r"^[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?$", re.ASCII)
_NO_HOST = "must be a host name or an IP address, without scheme and port, for example 10.0.0.7 or worker-1.example.com"


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _without_brackets(host: str) -> str:
    """`[::]` is what a URL has; it means `::`."""
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


def _reachable(written: str | None) -> str | None:
    """A variable that is there and empty says nothing."""
    if not written:
        return None
    host = _without_brackets(written)
    address = _address(host)
    if address is not None and address.is_unspecified:
        raise ValueError(f"{_NO_HOST}; every address of a machine is none that others could ask")
    scoped = isinstance(address, IPv6Address) and address.scope_id is not None
    if scoped or (address is None and not _HOST_NAME.match(host)):
        raise ValueError(_NO_HOST)
    return host


def _host_name(written: str) -> str:
    if not _HOST_NAME.match(written):
        raise ValueError("must be a host name, without scheme and port, for example replicator.example.com")
    return written.lower().removesuffix(".")


class ApiToken(Frozen):
    """A bearer token, by a name that the audit shows."""

    secret: Name = Field(description="one of secrets: the token itself, of at least 32 characters")
    access: Literal["read", "write"] = Field(default="write", description="read: it changes nothing, and shows values")


class Api(Frozen):
    """The admin API and the console: what commands do, over HTTP."""

    enabled: bool = Field(default=False, description="serve /api/v1 and /console/ on the admin port")
    tokens: dict[Name, ApiToken] = Field(default={}, description="by names of your own; without any nothing changes")
    read_without_token: bool = Field(
        default=True, description="without a token figures, keys and reasons can be read, and never values"
    )
    hosts: list[Annotated[str, AfterValidator(_host_name)]] = Field(
        default=[], description="names by which it is reached, beside addresses, localhost and advertise"
    )


class Admin(Frozen):
    """The admin HTTP server: /healthz /readyz /metrics /status."""

    host: Annotated[str, AfterValidator(_without_brackets)] = Field(
        default="127.0.0.1", description=":: is every address, of IPv4 too; 0.0.0.0 is every one of IPv4 only"
    )
    port: Integer = Field(default=9464, ge=0, le=65535, description="0 takes a free port, which the log names")
    advertise: Annotated[str | None, AfterValidator(_reachable)] = Field(
        default=None, description="name or address at which other machines reach it; else host, or this machine's name"
    )
    api: Api = Field(default=Api(), description="what commands do, over HTTP, and a console in the browser")

    @property
    def is_everywhere(self) -> bool:
        """Whether it listens on all addresses, so that `host` names none of them."""
        address = _address(self.host)
        return not self.host or (address is not None and address.is_unspecified)

    def public_url(self, port: int, machine: str) -> str:
        """Where others reach the server that listens on `port`; `machine` is the name of this one."""
        return url(self.advertise or (machine if self.is_everywhere else self.host), port)

    def local_urls(self) -> tuple[str, ...]:
        """Where a server of this configuration may be reached on this machine; none when it takes any free port.

        A machine may have one family only, and which one is not known from the configuration.
        """
        if self.port == 0:
            return ()
        loopbacks = ("127.0.0.1",) if self.host == "0.0.0.0" else ("127.0.0.1", "::1")  # noqa: S104 - it is compared
        return tuple(url(host, self.port) for host in (loopbacks if self.is_everywhere else (self.host,)))


def url(host: str, port: int) -> str:
    """The URL of a server, without a path."""
    return f"http://{host_and_port(host, port)}"


_SHORTEST_TOKEN = 32


def api_problems(api: Api, secrets: Mapping[str, SecretStr]) -> Iterator[str]:
    """What of the API contradicts the secrets, or itself; one line each, which bears no token."""
    seen: dict[str, str] = {}
    for name, token in api.tokens.items():
        where = f"admin.api.tokens.{name}.secret"
        if token.secret not in secrets:
            known = ", ".join(secrets) or "none is configured"
            yield f"{where}: must be the name of one of secrets ({known}), and is none"
            continue
        text = secrets[token.secret].get_secret_value()
        if len(text) < _SHORTEST_TOKEN or not text.isascii() or not text.isprintable() or " " in text:
            yield (
                f"secrets.{token.secret}: must be at least {_SHORTEST_TOKEN} characters of ASCII without spaces to be"
                " a token of the admin API; `openssl rand -hex 32` makes one"
            )
        if other := seen.get(text):
            yield f"{where}: is the same token as that of {other!r}, so the audit could not say who it was"
        seen[text] = name
    if api.enabled and not api.read_without_token and not api.tokens:
        yield "admin.api.tokens: needs one token at least where read_without_token is false"
