"""The MAC keys of an installation: by version, one of them current.

This is the file provider: `DIRECTORY/mac-N.key`, 32 random bytes in hex, mode 0600. Other providers (KMS, Vault) answer
the same three questions: which is current, which is version N, and why not.
"""

import os
import secrets
import stat
from collections.abc import Collection
from pathlib import Path
from typing import Protocol

from fundledger.security.mac import MacKey

SECRET_BYTES = 32


class KeyFault(Exception):
    """A key is missing or not safe to use. A deployment error: never a reason to freeze an account."""


class Keys(Protocol):
    @property
    def current(self) -> MacKey:
        """The key that new rows are MACed with."""
        ...

    def by_version(self, version: int) -> MacKey:
        """The key of a row. Raises KeyFault for a version that this installation does not have."""
        ...


class FileKeys:
    """Keys read once from a directory. Nothing is made: see `make_keys`. With `versions`, those of these versions only.

    Raises KeyFault when there is no key, or when a key file is readable by others or malformed.
    """

    def __init__(self, directory: Path, versions: Collection[int] = ()) -> None:
        self._keys = {v: key for v, key in read_keys(directory).items() if not versions or v in versions}
        if not self._keys:
            raise KeyFault(f"{directory} has no key: restore mac-1.key")
        self._current = self._keys[max(self._keys)]

    @property
    def current(self) -> MacKey:
        return self._current

    def by_version(self, version: int) -> MacKey:
        try:
            return self._keys[version]
        except KeyError:
            raise KeyFault(f"no MAC key of version {version}: has the key directory been replaced?") from None


def read_keys(directory: Path) -> dict[int, MacKey]:
    """The keys in a directory by version; none where it is missing or empty. Raises KeyFault."""
    found: dict[int, MacKey] = {}
    for path in directory.glob("mac-*.key"):
        version = path.stem.removeprefix("mac-")
        if not version.isdecimal():
            raise KeyFault(f"{path} is not named mac-N.key with a version N: move it elsewhere")
        found[int(version)] = MacKey(int(version), read_secret(path))
    return found


def make_keys(directory: Path) -> FileKeys:
    """The keys in a directory; a first one is made when there is none. For a schema that is made together with them.

    Raises KeyFault.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not read_keys(directory):
        make_secret(directory / "mac-1.key")
    return FileKeys(directory)


def read_secret(path: Path) -> bytes:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise KeyFault(f"{path} is readable by others (mode {mode:04o}): it must be 0600")
    try:
        secret = bytes.fromhex(path.read_text().strip())
    except ValueError:
        secret = b""
    if len(secret) < SECRET_BYTES:
        raise KeyFault(f"{path} is not a key: 64 hexadecimal digits are expected")
    return secret


def make_secret(path: Path) -> bytes:
    """Write 32 random bytes in hex; see `write_new`."""
    secret = secrets.token_bytes(SECRET_BYTES)
    write_new(path, secret.hex() + "\n")
    return secret


def write_new(path: Path, text: str) -> None:
    """Make a file of mode 0600, whole or not at all, and durable before this returns.

    Data MACed with a key that a crash then lost could never be verified again. Raises FileExistsError.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(handle, text.encode())
        os.fsync(handle)
    finally:
        os.close(handle)
    try:
        os.link(draft, path)
    finally:
        draft.unlink()
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
