"""Start-up step of the host: other users lose access to private files of the data directory."""

import contextlib
import os
import stat
from pathlib import Path
from typing import Final

_FILES: Final = ("postgres.log*", "valkey.log*", "limits.toml", "limits*", "serve.lock", "simulator/*", "*-folder.json")
_FOLDERS: Final = ("simulator",)


def mend_modes(data_dir: Path) -> None:
    """Remove the access of other users from files and folders of earlier versions. Follows no link.

    Files with keys and tokens are left unchanged. If other users could read such a file, its content may be known to
    them. So `serve` refuses the file.
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
