"""Folders of the host for unix sockets: in the data directory, or private temporary folders recorded there.

The path of a socket has at most 107 bytes. It is used in syntaxes in which commas, spaces and `%` are special (a list
of host names, a URL, a command line). If the path of the data directory is too long or has special characters,
`mkdtemp` creates the folder under an unpredictable name, and its path is stored in the data directory. An existing
folder is used only if it is a directory and no link, has the right owner, and has mode 0700.
"""

import contextlib
import json
import os
import re
import stat
import tempfile
from pathlib import Path
from typing import Final

from fundledger.app.host.postgres.system_user import system_user_if_any
from fundledger.app.host.preflight import CannotServe

FOLDER_BYTES_MAX: Final = 86
"""Maximum length of the folder's path in bytes. A socket's path has at most 107 bytes, and `/fund-metrics.sock` is the
longest name of a socket.
"""
_PLAIN: Final = re.compile(r"/[A-Za-z0-9._/+~-]*")
_MODE: Final = 0o700


def run_dir(data_dir: Path) -> Path:
    """Return the folder for the sockets of workers, supervisor and Valkey. The user of this process owns the folder.

    The folder is created if it is missing. Raises CannotServe if something else is in its place.
    """
    return socket_folder(data_dir, "run", os.geteuid())


def socket_folder(data_dir: Path, name: str, owner: int) -> Path:
    """Return the socket folder `name` (mode 0700) of an existing data directory, and create it if it is missing.

    Repeated calls return the same folder. Raises CannotServe if something else is in its place.
    """
    inside = data_dir / name
    try:
        if fits(inside):
            _claim(inside, owner)
            return inside
        return _remembered(data_dir, name, owner) or _new(data_dir, name, owner)
    except OSError as error:
        raise CannotServe(f"{inside}: {error.strerror}; the socket folder cannot be created") from None


def known_folder(data_dir: Path, name: str) -> Path | None:
    """Return the socket folder `name` of a data directory, None if there is none. Creates nothing.

    A returned folder is a directory and no link. The user of this process or the system user of Postgres owns it.
    """
    user = system_user_if_any()
    owners = {os.geteuid()} | (set() if user is None else {user.pw_uid})
    inside = data_dir / name
    if not fits(inside):
        return next((kept for owner in owners if (kept := _remembered(data_dir, name, owner)) is not None), None)
    try:
        found = inside.lstat()
    except OSError:
        return None
    return inside if stat.S_ISDIR(found.st_mode) and found.st_uid in owners else None


def fits(folder: Path) -> bool:
    """Return whether the path of a socket in the folder is short enough and has no special characters."""
    return len(os.fsencode(folder)) <= FOLDER_BYTES_MAX and _PLAIN.fullmatch(str(folder)) is not None


def _claim(folder: Path, owner: int) -> None:
    """Create the folder, or correct mode and owner of a folder from an earlier version. Raises OSError, CannotServe."""
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=_MODE)
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except NotADirectoryError:
        raise CannotServe(f"{folder} is a link or a file, not a directory: remove it") from None
    try:
        found = os.fstat(handle)
        user = system_user_if_any()
        ours = {os.geteuid(), owner} | (set() if user is None else {user.pw_uid})
        if found.st_uid not in ours:
            raise CannotServe(f"{folder} belongs to user {found.st_uid}: remove it")
        if found.st_uid != owner:
            os.fchown(handle, owner, -1)
        if stat.S_IMODE(found.st_mode) != _MODE:
            os.fchmod(handle, _MODE)
    finally:
        os.close(handle)


def _remembered(data_dir: Path, name: str, owner: int) -> Path | None:
    """Return the temporary folder of this data directory, None if it is gone or was replaced.

    The file that records the folder also identifies the data directory, because copies of the data directory contain
    the file, too.
    """
    try:
        handle = os.open(_memory(data_dir, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(handle) as file:
            kept = json.load(file)
        folder = Path(kept["folder"])
        found = folder.lstat()
    except (OSError, ValueError, TypeError, KeyError):
        return None
    is_made = stat.S_ISDIR(found.st_mode) and stat.S_IMODE(found.st_mode) == _MODE and found.st_uid == owner
    return folder if is_made and kept.get("of") == _identity(data_dir) and fits(folder) else None


def _new(data_dir: Path, name: str, owner: int) -> Path:
    for parent in (tempfile.gettempdir(), "/tmp", "/var/tmp"):  # noqa: S108 - mkdtemp creates an unpredictable name
        if fits(Path(parent) / "fundledger-12345678") and os.access(parent, os.W_OK | os.X_OK):
            break
    else:
        raise CannotServe(f"{data_dir} is too long for sockets, and no temporary folder is suitable: set TMPDIR")
    folder = Path(tempfile.mkdtemp(prefix="fundledger-", dir=parent))
    if owner != os.geteuid():
        os.chown(folder, owner, -1)
    draft = _memory(data_dir, name).with_suffix(f".{os.getpid()}")
    draft.unlink(missing_ok=True)
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "w") as file:
        json.dump({"folder": str(folder), "of": _identity(data_dir)}, file)
    draft.replace(_memory(data_dir, name))
    return folder


def _memory(data_dir: Path, name: str) -> Path:
    return data_dir / f"{name}-folder.json"


def _identity(data_dir: Path) -> list[int]:
    found = data_dir.stat()
    return [found.st_dev, found.st_ino]
