"""Whether a client's hot calls can go without it: decided by a request that the client prepares and does not send.

The stock client says where requests go (endpoint rules, account ids) and how they are signed. Where our own request
would differ from it in anything that matters, or where it uses a proxy, the stock client stays in use.
"""

from __future__ import annotations

import ssl
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from botocore.httpsession import where
from botocore.utils import get_environ_proxies
from msgspec import Struct

from replicator.adapters.aws.transport.connection import is_supported
from replicator.adapters.aws.transport.lean import LeanTransport, Service

if TYPE_CHECKING:
    from replicator.adapters.aws.credentials import RenewableCredentials

_PROBES: dict[str, tuple[str, dict[str, Any]]] = {
    "DynamoDB": ("get_item", {"TableName": "replicator-self-test", "Key": {"k": {"S": "é"}}}),
    "Kinesis": ("get_records", {"ShardIterator": "replicator-self-test"}),
    "DynamoDB Streams": ("get_records", {"ShardIterator": "replicator-self-test"}),
}
"""By service id: a call that is prepared, and never sent."""

_COMPARED = ("X-Amz-Target", "Content-Type", "X-Amz-Date", "X-Amz-Security-Token", "Authorization")


_preparing: ContextVar[bool] = ContextVar("replicator_preparing", default=False)
"""Whether this task's request is one that is not sent; other tasks use the same client meanwhile."""


class _Prepared(Exception):
    """A request that is ready to be sent; raised in place of sending it."""

    def __init__(self, request: Any) -> None:
        super().__init__("prepared")
        self.request = request


class Choice(Struct, frozen=True):
    """The transport to use, or why the stock client stays in use."""

    transport: LeanTransport | None
    why_not: str = ""


async def choose(  # noqa: PLR0913 - a composition root fills it once
    client: Any,
    *,
    credentials: RenewableCredentials,
    connections: int,
    connect_seconds: float,
    read_seconds: float,
    ca_bundle: str | None,
) -> Choice:
    """A transport that does what the client would do; raises what keeps the client from preparing a request."""
    if not is_supported():
        return Choice(None, "httptools cannot be used on this platform")
    request = await _prepared(client)
    if get_environ_proxies(request.url):
        return Choice(None, "a proxy is configured")
    transport = LeanTransport(
        Service.of(client),
        url=request.url,
        region=client.meta.region_name,
        credentials=credentials,
        connections=connections,
        connect_seconds=connect_seconds,
        read_seconds=read_seconds,
        tls=trust(ca_bundle) if request.url.startswith("https:") else None,
    )
    difference = _difference(transport, await credentials.get_frozen_credentials(), request)
    return Choice(transport) if difference is None else Choice(None, difference)


async def _prepared(client: Any) -> Any:
    operation, parameters = _PROBES[client.meta.service_model.service_id]
    event = f"before-send.{client.meta.service_model.service_id.hyphenize()}"
    client.meta.events.register_first(event, _keep, unique_id="replicator-self-test")
    token = _preparing.set(True)
    try:
        await getattr(client, operation)(**parameters)
    except _Prepared as prepared:
        return prepared.request
    finally:
        _preparing.reset(token)
    raise AssertionError("a request that was not to be sent was answered")


def _keep(request: Any, **_: object) -> None:
    if _preparing.get():
        raise _Prepared(request)


def _difference(transport: LeanTransport, credentials: Any, request: Any) -> str | None:
    """In what the same call differs when it is made without the client; None when in nothing that matters."""
    theirs = {name.title(): _text(value) for name, value in request.headers.items()}
    target = theirs["X-Amz-Target"].rpartition(".")[2]
    sent_at = datetime.strptime(theirs["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    head, _, _ = transport.request(target, request.body, credentials, sent_at).partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    ours = {name.title(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
    differ = [name for name in _COMPARED if ours.get(name) != theirs.get(name)]
    if request.method != "POST" or request.url.partition("://")[2].partition("/")[2]:
        differ.append("the address")
    return f"it would send other requests than the stock client ({', '.join(differ)})" if differ else None


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


@cache
def trust(ca_bundle: str | None) -> ssl.SSLContext:
    """Certificates that are believed: of `ca_bundle`, else the system's and those of the stock client. Read once."""
    context = ssl.create_default_context(cafile=ca_bundle)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_bundle is None:
        context.load_verify_locations(where())
    return context
