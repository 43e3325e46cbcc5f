"""Log files of the servers that the host embeds (Postgres, Valkey): mode 0600, bounded size."""

import contextlib
import os
import stat
from pathlib import Path
from typing import BinaryIO, Final

BYTES_MAX: Final = 16 << 20


class LogFile:
    """A file that a child process appends to, and its predecessor `NAME.1`.

    The total size of both files is at most twice `bytes_max`, plus the bytes written between two calls of `bound`.
    """

    def __init__(self, path: Path, bytes_max: int = BYTES_MAX) -> None:
        self.path = path
        self._bytes_max = bytes_max

    def open(self) -> BinaryIO:
        """Open the file as the output of a process, and correct its mode. Raises OSError, also for a link."""
        self.bound()
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        if stat.S_IMODE(os.fstat(handle).st_mode) != 0o600:
            os.fchmod(handle, 0o600)
        return os.fdopen(handle, "ab")

    def bound(self) -> bool:
        """If the file is too long, copy its end to `NAME.1` and empty the file. Return whether this was done.

        The child process appends, so it continues at the start of the emptied file. Lines that it writes during the
        call may be lost. Never raises.
        """
        with contextlib.suppress(OSError):
            handle = os.open(self.path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            with os.fdopen(handle, "r+b") as file:
                size = file.seek(0, os.SEEK_END)
                if size <= self._bytes_max:
                    return False
                file.seek(size - self._bytes_max)
                try:
                    self._keep(file)
                finally:
                    # The file is emptied even if there is no disk space for the copy.
                    file.truncate(0)
                return True
        return False

    def _keep(self, file: BinaryIO) -> None:
        before = self.path.with_name(f"{self.path.name}.1")
        before.unlink(missing_ok=True)
        handle = os.open(before, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as kept:
            while chunk := file.read(1 << 20):
                kept.write(chunk)
