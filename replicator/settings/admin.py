"""The admin server: where it listens, and where others reach it.

Invariant: an IPv6 address is written without brackets in the configuration and with them in a URL.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Annotated

from pydantic import AfterValidator, Field

from replicator.settings.values import Frozen

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


class Admin(Frozen):
    """The admin HTTP server: /healthz /readyz /metrics /status."""

    host: Annotated[str, AfterValidator(_without_brackets)] = Field(
        default="127.0.0.1", description=":: is every address, of IPv4 too; 0.0.0.0 is every one of IPv4 only"
    )
    port: int = Field(default=9464, ge=0, le=65535, description="0 takes a free port, which the log names")
    advertise: Annotated[str | None, AfterValidator(_reachable)] = Field(
        default=None, description="name or address at which other machines reach it; else host, or this machine's name"
    )

    @property
    def is_everywhere(self) -> bool:
        """Whether it listens on all addresses, so that `host` names none of them."""
        address = _address(self.host)
        return not self.host or (address is not None and address.is_unspecified)

    def public_url(self, port: int, machine: str) -> str:
        """Where others reach the server that listens on `port`; `machine` is the name of this one."""
        return url(self.advertise or (machine if self.is_everywhere else self.host), port)

    def local_url(self) -> str | None:
        """Where a server of this configuration on this machine is reached; None when it takes any free port."""
        if self.port == 0:
            return None
        return url("127.0.0.1" if self.is_everywhere else self.host, self.port)


def url(host: str, port: int) -> str:
    """The URL of a server, without a path."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
