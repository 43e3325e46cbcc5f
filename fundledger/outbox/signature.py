"""Signature of outbox webhooks, as defined by Standard Webhooks (https://www.standardwebhooks.com): symmetric, version
1.
"""

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
    """Return the text of a secret that the merchant gets: `whsec_` and the secret in base64."""
    return PREFIX + base64.b64encode(secret).decode()


def headers(secret: bytes, message: str, at: int, body: bytes) -> dict[str, str]:
    """Return the signature headers of an attempt. `message`: the id of the delivery, the same for each attempt. `at`:
    the time of the attempt (s since 1970), so that a receiver can reject old attempts.
    """
    signed = f"{message}.{at}.".encode() + body
    signature = base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode()
    return {"webhook-id": message, "webhook-timestamp": str(at), "webhook-signature": f"v1,{signature}"}
