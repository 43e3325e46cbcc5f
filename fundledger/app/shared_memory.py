"""Which kind of memory Postgres shares between the processes of one query."""

import os
from pathlib import Path
from typing import Final

SHARED: Final = Path("/dev/shm")  # noqa: S108 - where the operating system has it
NEEDED_MB: Final = 32


def room_mb(folder: Path = SHARED) -> int:
    """The free space there for an ordinary user, in MB; 0 when it is not there or cannot be written."""
    try:
        found = os.statvfs(folder)
        everyone_writes = folder.stat().st_mode & 0o007 == 0o007
    except OSError:
        return 0
    if found.f_flag & os.ST_RDONLY or not everyone_writes:
        return 0
    return found.f_bavail * found.f_frsize >> 20


def shared_memory_type(folder: Path = SHARED) -> str:
    """`posix`, or `mmap` (files in the data directory) where `/dev/shm` has no room.

    Chosen at each start: initdb chose once, and a machine may be another one by then.
    """
    return "posix" if room_mb(folder) >= NEEDED_MB else "mmap"
