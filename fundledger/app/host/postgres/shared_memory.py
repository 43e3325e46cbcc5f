"""Choice of the shared memory type of the embedded Postgres for parallel queries."""

import os
from pathlib import Path
from typing import Final

SHARED: Final = Path("/dev/shm")  # noqa: S108 - fixed by the operating system
NEEDED_MB: Final = 32


def room_mb(folder: Path = SHARED) -> int:
    """Return the free space (MB) in the folder for an ordinary user; 0 if it is missing or not writable."""
    try:
        found = os.statvfs(folder)
        everyone_writes = folder.stat().st_mode & 0o007 == 0o007
    except OSError:
        return 0
    if found.f_flag & os.ST_RDONLY or not everyone_writes:
        return 0
    return found.f_bavail * found.f_frsize >> 20


def shared_memory_type(folder: Path = SHARED) -> str:
    """Return `posix`, or `mmap` (files in the data directory) if `/dev/shm` has too little space.

    The type is chosen at each start, because initdb may have chosen it on another machine.
    """
    return "posix" if room_mb(folder) >= NEEDED_MB else "mmap"
