"""MAC keys of an installation, by version; the highest version is current.

Keys are files: `DIRECTORY/mac-N.key`, 32 random bytes in hex, mode 0600. Other providers (KMS, Vault) implement the
protocol `Keys`.
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
    """A key is missing or not safe to use. This is a deployment error, and never a reason to freeze an account."""


class Keys(Protocol):
    """Provider of MAC keys."""

    @property
    def current(self) -> MacKey:
        """Return the key for MACs of new rows."""
        ...

    def by_version(self, version: int) -> MacKey:
        """Return the key of a row. Raises KeyFault for a version that this installation does not have."""
        ...


class FileKeys:
    """Keys that are read once from a directory. The directory is not changed.

    Only the keys in `versions` are used; if `versions` is empty, all keys are used. Raises KeyFault if there is no key,
    or if a key file is readable by others or malformed.
    """

    def __init__(self, directory: Path, versions: Collection[int] = ()) -> None:
        self._keys = {v: key for v, key in read_keys(directory).items() if not versions or v in versions}
        if not self._keys:
            raise KeyFault(f"{directory} has no key: restore mac-N.key")
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
    """Return the keys in a directory by version. The result is empty if there is no such directory. Raises KeyFault."""
    found: dict[int, MacKey] = {}
    for path in directory.glob("mac-*.key"):
        version = path.stem.removeprefix("mac-")
        if not version.isdecimal():
            raise KeyFault(f"{path} is not named mac-N.key with a number N: move it elsewhere")
        found[int(version)] = MacKey(int(version), read_secret(path))
    return found


def make_keys(directory: Path) -> FileKeys:
    """Return the keys in a directory. If the directory contains no key, first create a key.

    Call this function only for a new schema. Raises KeyFault.
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
    """Write 32 random bytes in hex to a new file, and return the bytes. Raises FileExistsError."""
    secret = secrets.token_bytes(SECRET_BYTES)
    write_new(path, secret.hex() + "\n")
    return secret


def write_new(path: Path, text: str) -> None:
    """Create a file of mode 0600 atomically, and make it durable before returning. Raises FileExistsError.

    If a crash lost a key, the rows with MACs of this key could never be verified again.
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
