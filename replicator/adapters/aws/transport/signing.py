"""Signature Version 4 of requests whose headers are always the same ones.

A key is derived once per day, secret and scope. Within a second requests of one kind differ in their body only, so what
comes before it is hashed once a second; what is left for each request are three short hashes. Source: "Signature
Version 4 for API requests" in the IAM User Guide. The self-test at the start compares it with the stock client's.
"""

from __future__ import annotations

import hmac
from hashlib import sha256
from time import gmtime, strftime
from typing import TYPE_CHECKING, Any

from msgspec import Struct

if TYPE_CHECKING:
    from botocore.credentials import ReadOnlyCredentials


class _Key(Struct):
    """A derived key and what it was derived for: day, access key and secret."""

    of: tuple[str | None, ...]
    inner: Any
    """The two hashes of an HMAC, each as far as the key: two copies of these are cheaper than one of an HMAC."""
    outer: Any
    scope: str


class _Stamp(Struct):
    """What requests of one kind have in common within a second."""

    canonical: Any
    """The hash of a canonical request as far as its body."""
    inner: Any
    """The inner hash of the seal of what is signed, as far as the hash of the canonical request."""
    outer: Any
    """The outer hash of the seal, as far as the inner one."""
    lines: bytes
    """Header lines as far as the signature."""
    token: bytes
    """Header lines behind it."""


class Signer:
    """Signs requests of one service in one region to one host."""

    def __init__(self, *, service: str, region: str, host: str, content_type: str) -> None:
        self._service = service
        self._region = region
        self._host = host
        self._content_type = content_type
        self._key: _Key | None = None
        self._of: tuple[int, ReadOnlyCredentials] | None = None
        """Second and credentials of the stamps."""
        self._stamps: dict[str, _Stamp] = {}

    def headers(self, credentials: ReadOnlyCredentials, target: str, body: bytes, now: float) -> bytes:
        """The header lines that carry a signature; `target`: of X-Amz-Target, `now`: server time in seconds."""
        of = (int(now), credentials)
        if of != self._of:
            self._of = of
            self._stamps.clear()
        stamp = self._stamps.get(target)
        if stamp is None:
            stamp = self._stamps[target] = self._stamp(credentials, target, of[0])
        canonical, inner, outer = stamp.canonical.copy(), stamp.inner.copy(), stamp.outer.copy()
        content = _NOTHING_HASHED.copy()
        content.update(body)
        canonical.update(content.hexdigest().encode())
        inner.update(canonical.hexdigest().encode())
        outer.update(inner.digest())
        return b"%b%b\r\n%b" % (stamp.lines, outer.hexdigest().encode(), stamp.token)

    def _stamp(self, credentials: ReadOnlyCredentials, target: str, second: int) -> _Stamp:
        amz_date = strftime("%Y%m%dT%H%M%SZ", gmtime(second))
        key, token = self._derived(credentials, amz_date[:8]), credentials.token
        signed = _WITH_TOKEN if token else _WITHOUT_TOKEN
        secured = f"x-amz-security-token:{token}\n" if token else ""
        canonical = (
            f"POST\n/\n\ncontent-type:{self._content_type}\nhost:{self._host}\nx-amz-date:{amz_date}\n"
            f"{secured}x-amz-target:{target}\n\n{signed}\n"
        )
        inner = key.inner.copy()
        inner.update(f"AWS4-HMAC-SHA256\n{amz_date}\n{key.scope}\n".encode())
        lines = (
            f"X-Amz-Target: {target}\r\nX-Amz-Date: {amz_date}\r\nAuthorization: AWS4-HMAC-SHA256 "
            f"Credential={credentials.access_key}/{key.scope}, SignedHeaders={signed}, Signature="
        )
        behind = f"X-Amz-Security-Token: {token}\r\n" if token else ""
        return _Stamp(sha256(canonical.encode()), inner, key.outer, lines.encode("latin-1"), behind.encode("latin-1"))

    def _derived(self, credentials: ReadOnlyCredentials, day: str) -> _Key:
        key, wanted = self._key, (day, credentials.access_key, credentials.secret_key)
        if key is None or key.of != wanted:
            step = f"AWS4{credentials.secret_key}".encode()
            for part in (day, self._region, self._service, "aws4_request"):
                step = hmac.digest(step, part.encode(), "sha256")
            scope = f"{day}/{self._region}/{self._service}/aws4_request"
            padded = step.ljust(sha256().block_size, b"\0")
            key = self._key = _Key(wanted, sha256(padded.translate(_INNER)), sha256(padded.translate(_OUTER)), scope)
        return key


_NOTHING_HASHED = sha256()
"""A copy of it is cheaper than a new one."""

_INNER, _OUTER = (bytes(byte ^ pad for byte in range(256)) for pad in (0x36, 0x5C))
"""What HMAC does to its key (RFC 2104)."""

_WITHOUT_TOKEN = "content-type;host;x-amz-date;x-amz-target"  # noqa: S105 - names of headers
_WITH_TOKEN = "content-type;host;x-amz-date;x-amz-security-token;x-amz-target"  # noqa: S105 - names of headers
