"""Signatures of webhooks, as the Standard Webhooks specification says: HMAC-SHA256 over id, time and body."""

from __future__ import annotations

import base64
import binascii
import hmac
from hashlib import sha256

_PREFIX = "whsec_"


def key_of(secret: str) -> bytes:
    """The key that a secret stands for: what `whsec_` is followed by in base64, else its bytes.

    ValueError when it is empty or no base64; its text is in no error.
    """
    if not secret.startswith(_PREFIX):
        key = secret.encode()
    else:
        try:
            key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
        except binascii.Error:
            raise ValueError("is no base64 behind whsec_") from None
    if not key:
        raise ValueError("is empty")
    return key


def signed_headers(key: bytes, message_id: str, seconds: int, body: bytes) -> dict[str, str]:
    """The headers that prove who sent a body, and when."""
    signed = f"{message_id}.{seconds}.".encode() + body
    signature = base64.b64encode(hmac.new(key, signed, sha256).digest()).decode()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(seconds),
        "webhook-signature": f"v1,{signature}",
    }
