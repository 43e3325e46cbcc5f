"""Signature of outbox webhooks: Standard Webhooks (https://www.standardwebhooks.com), symmetric, version 1."""

import base64
import hashlib
import hmac
import secrets
from typing import Final

SECRET_BYTES: Final = 32
PREFIX: Final = "whsec_"


def new_secret() -> bytes:
    return secrets.token_bytes(SECRET_BYTES)


def secret_text(secret: bytes) -> str:
    """Return the secret as the text that the merchant gets."""
    return PREFIX + base64.b64encode(secret).decode()


def headers(secret: bytes, message: str, at: int, body: bytes) -> dict[str, str]:
    """Return the headers of an attempt. `message` is the same for each attempt. `at` (s since 1970) is the time of this
    attempt, so that a receiver can reject old attempts.
    """
    signed = f"{message}.{at}.".encode() + body
    signature = base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode()
    return {"webhook-id": message, "webhook-timestamp": str(at), "webhook-signature": f"v1,{signature}"}
