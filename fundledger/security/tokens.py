"""Bearer tokens of modules: kept as hashes, compared as hashes."""

import hashlib
import os
import secrets
from pathlib import Path

from fundledger.security.keys import KeyFault


def dev_token(path: Path) -> str:
    """The token of the module `dev`, made on first start, mode 0600. Raises KeyFault when others can read it."""
    if path.exists():
        if path.stat().st_mode & 0o077:
            raise KeyFault(f"{path} is readable by others: it must be 0600")
        return path.read_text().strip()
    token = "dev_" + secrets.token_urlsafe(32)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(token + "\n")
    return token


class Tokens:
    """Which module a bearer token belongs to. Looked up by hash, so that no comparison depends on a secret's prefix."""

    def __init__(self, modules_by_hash: dict[bytes, str]) -> None:
        self._modules = modules_by_hash

    @classmethod
    def of(cls, tokens: dict[str, str]) -> "Tokens":
        """From `{token: module}`."""
        return cls({hashlib.sha256(token.encode()).digest(): module for token, module in tokens.items()})

    def module(self, authorization: str | None) -> str | None:
        """The module that sent this `Authorization` header, or None."""
        if authorization is None or authorization[:7].lower() != "bearer ":
            return None
        token = authorization[7:].strip()
        return self._modules.get(hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest())
