"""The files of a data directory that only its owner may read, whatever the umask was when they were made."""

import contextlib
import os
import stat
from pathlib import Path
from typing import Final

_FILES: Final = ("postgres.log*", "valkey.log*", "limits.toml", "limits*", "serve.lock", "simulator/*", "*-folder.json")
_FOLDERS: Final = ("simulator",)


def mend_modes(data_dir: Path) -> None:
    """Take all rights of others from files and folders that earlier versions made with them. Follows no link.

    Keys and tokens are not among them: one that others could read is refused, since it may be known by now.
    """
    for pattern in _FILES:
        for path in data_dir.glob(pattern):
            _restrict(path, 0o600, os.O_NONBLOCK)
    for name in _FOLDERS:
        _restrict(data_dir / name, 0o700, os.O_DIRECTORY)


def _restrict(path: Path, mode: int, flags: int) -> None:
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | flags)
        try:
            found = os.fstat(handle)
            if stat.S_IMODE(found.st_mode) & 0o077 and not (flags & os.O_NONBLOCK and stat.S_ISDIR(found.st_mode)):
                os.fchmod(handle, mode)
        finally:
            os.close(handle)
