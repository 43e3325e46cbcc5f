"""Bearer tokens of modules: kept as hashes, compared as hashes."""

import hashlib
import secrets
from pathlib import Path

from fundledger.security.keys import KeyFault, write_new


def read_token(path: Path) -> str | None:
    """The token in a file, None when there is no file. Raises KeyFault when others can read it, or when it is empty."""
    if not path.exists():
        return None
    if path.stat().st_mode & 0o077:
        raise KeyFault(f"{path} is readable by others: it must be 0600")
    token = path.read_text().strip()
    if not token:
        raise KeyFault(f"{path} is empty: remove it, and a new token is made")
    return token


def module_token(path: Path, module: str) -> str:
    """The token of a module, made where it is missing, mode 0600. Raises KeyFault, as `read_token`."""
    found = read_token(path)
    if found is not None:
        return found
    token = f"{module}_" + secrets.token_urlsafe(32)
    write_new(path, token + "\n")
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
