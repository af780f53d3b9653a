"""Signatures of webhooks, as the Standard Webhooks specification says: HMAC-SHA256 over id, time and body."""

from __future__ import annotations

import base64
import hmac
from hashlib import sha256


def signed_headers(key: bytes, message_id: str, seconds: int, body: bytes) -> dict[str, str]:
    """The headers that prove who sent a body, and when."""
    signed = f"{message_id}.{seconds}.".encode() + body
    signature = base64.b64encode(hmac.new(key, signed, sha256).digest()).decode()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(seconds),
        "webhook-signature": f"v1,{signature}",
    }
