"""Bearer tokens of modules (authenticated client systems), looked up by hash."""

import hashlib
import secrets
from pathlib import Path

from fundledger.security.keys import KeyFault, write_new


def read_token(path: Path) -> str | None:
    """Return the token in a file, or None if there is no file.

    Raises KeyFault if the file is readable by others or empty.
    """
    if not path.exists():
        return None
    if path.stat().st_mode & 0o077:
        raise KeyFault(f"{path} is readable by others: it must be 0600")
    token = path.read_text().strip()
    if not token:
        raise KeyFault(f"{path} is empty: remove it, and a new token is created")
    return token


def module_token(path: Path, module: str) -> str:
    """Return the access token of a client system. If the file is missing, first create it (mode 0600) with a new token.

    Raises KeyFault.
    """
    found = read_token(path)
    if found is not None:
        return found
    token = f"{module}_" + secrets.token_urlsafe(32)
    write_new(path, token + "\n")
    return token


class Tokens:
    """Modules by bearer token.

    Tokens are looked up by hash, so that the time does not depend on a prefix of the secret.
    """

    def __init__(self, modules_by_hash: dict[bytes, str]) -> None:
        self._modules = modules_by_hash

    @classmethod
    def of(cls, tokens: dict[str, str]) -> "Tokens":
        """Return a lookup for `tokens`, a dict that maps each token to its module."""
        return cls({hashlib.sha256(token.encode()).digest(): module for token, module in tokens.items()})

    def module(self, authorization: str | None) -> str | None:
        """Return the module of the token in an `Authorization` header.

        Return None if the token is unknown or malformed.
        """
        digest = digest_of(authorization)
        return None if digest is None else self._modules.get(digest)


def digest_of(authorization: str | None) -> bytes | None:
    """Return the SHA-256 of the token in an `Authorization` header, or None if the header has no bearer token."""
    if authorization is None or authorization[:7].lower() != "bearer ":
        return None
    token = authorization[7:].strip()
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
