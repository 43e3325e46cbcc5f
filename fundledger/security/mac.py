"""MAC of a message under one MAC key: HMAC-SHA256 (RFC 2104).

The two hash states after the padded key are computed once, and are copied for each MAC.
"""

import hashlib
import hmac

_BLOCK = 64


class MacKey:
    """One version of the MAC key. `tag` is pure and safe for concurrent use; `repr` never contains the secret."""

    __slots__ = ("_inner", "_outer", "version")

    def __init__(self, version: int, secret: bytes) -> None:
        if len(secret) < 32:
            raise ValueError("a MAC key must have at least 32 bytes")
        if len(secret) > _BLOCK:
            secret = hashlib.sha256(secret).digest()
        padded = secret.ljust(_BLOCK, b"\0")
        self.version = version
        self._inner = hashlib.sha256(bytes(x ^ 0x36 for x in padded))
        self._outer = hashlib.sha256(bytes(x ^ 0x5C for x in padded))

    def __repr__(self) -> str:
        return f"MacKey(version={self.version})"

    def tag(self, message: bytes) -> bytes:
        """Return 32 bytes, equal to `hmac.digest(secret, message, "sha256")`."""
        inner = self._inner.copy()
        inner.update(message)
        outer = self._outer.copy()
        outer.update(inner.digest())
        return outer.digest()

    def matches(self, message: bytes, mac: bytes) -> bool:
        """Return whether `mac` is the MAC of the message. The comparison takes constant time."""
        return hmac.compare_digest(self.tag(message), mac)
