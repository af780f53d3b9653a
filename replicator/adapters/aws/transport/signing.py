"""Signature Version 4 of requests whose headers are always the same ones.

A key is derived once per day, secret and scope; what is left for each request are three hashes. Source: "Signature
Version 4 for API requests" in the IAM User Guide. The self-test at the start compares it with the stock client's.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from hashlib import sha256
from time import gmtime, strftime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from botocore.credentials import ReadOnlyCredentials


@dataclass(slots=True)
class _Key:
    """A derived key and what it was derived for."""

    of: tuple[str | None, ...]
    """Day, access key and secret."""
    derived: hmac.HMAC
    scope: str
    authorization: str


class Signer:
    """Signs requests of one service in one region to one host."""

    def __init__(self, *, service: str, region: str, host: str, content_type: str) -> None:
        self._service = service
        self._region = region
        self._host = host
        self._content_type = content_type
        self._key: _Key | None = None
        self._second = -1
        self._amz_date = ""

    def headers(self, credentials: ReadOnlyCredentials, target: str, body: bytes, now: float) -> str:
        """The header lines that carry a signature; `target`: of X-Amz-Target, `now`: server time in seconds."""
        second = int(now)
        if second != self._second:
            self._second, self._amz_date = second, strftime("%Y%m%dT%H%M%SZ", gmtime(second))
        amz_date = self._amz_date
        key = self._derived(credentials, amz_date[:8])
        token = credentials.token
        if token:
            signed = _WITH_TOKEN
            canonical = (
                f"POST\n/\n\ncontent-type:{self._content_type}\nhost:{self._host}\nx-amz-date:{amz_date}\n"
                f"x-amz-security-token:{token}\nx-amz-target:{target}\n\n{signed}\n{sha256(body).hexdigest()}"
            )
        else:
            signed = _WITHOUT_TOKEN
            canonical = (
                f"POST\n/\n\ncontent-type:{self._content_type}\nhost:{self._host}\nx-amz-date:{amz_date}\n"
                f"x-amz-target:{target}\n\n{signed}\n{sha256(body).hexdigest()}"
            )
        to_sign = f"AWS4-HMAC-SHA256\n{amz_date}\n{key.scope}\n{sha256(canonical.encode()).hexdigest()}"
        seal = key.derived.copy()
        seal.update(to_sign.encode())
        lines = f"X-Amz-Date: {amz_date}\r\n{key.authorization}{signed}, Signature={seal.hexdigest()}\r\n"
        return f"{lines}X-Amz-Security-Token: {token}\r\n" if token else lines

    def _derived(self, credentials: ReadOnlyCredentials, day: str) -> _Key:
        key, wanted = self._key, (day, credentials.access_key, credentials.secret_key)
        if key is None or key.of != wanted:
            step = f"AWS4{credentials.secret_key}".encode()
            for part in (day, self._region, self._service, "aws4_request"):
                step = hmac.digest(step, part.encode(), "sha256")
            scope = f"{day}/{self._region}/{self._service}/aws4_request"
            authorization = (
                f"Authorization: AWS4-HMAC-SHA256 Credential={credentials.access_key}/{scope}, SignedHeaders="
            )
            key = self._key = _Key(
                wanted,
                hmac.new(step, digestmod="sha256"),
                scope,
                authorization,
            )
        return key


_WITHOUT_TOKEN = "content-type;host;x-amz-date;x-amz-target"  # noqa: S105 - names of headers
_WITH_TOKEN = "content-type;host;x-amz-date;x-amz-security-token;x-amz-target"  # noqa: S105 - names of headers
