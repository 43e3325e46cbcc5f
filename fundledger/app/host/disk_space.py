"""Disk space check for a new data directory of the embedded Postgres, made before anything is written."""

import os
import shutil
from pathlib import Path
from typing import Final

FIRST_START_MB: Final = 256
"""Space for a first start with shared memory of at most `postgres.SMALL_MB`: databases, write-ahead log and initdb."""
FIRST_START_LARGE_MB: Final = 1024
"""Space for a first start with more shared memory, for which write-ahead log files are preallocated."""


class NoRoom(Exception):
    """There is too little disk space. The message is one line that states the needed space."""


def free_mb(folder: Path) -> int:
    """Return the free space (MB) of the filesystem of a folder, which may not exist yet."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free >> 20


def needed_mb(large: bool) -> int:
    """Return the space (MB) that a first start needs."""
    return FIRST_START_LARGE_MB if large else FIRST_START_MB


def ask_for_room(folder: Path, large: bool) -> None:
    """Raise NoRoom if the filesystem of `folder` has too little space for a first start."""
    free, needed = free_mb(folder), needed_mb(large)
    if free < needed:
        raise NoRoom(
            f"{os.fspath(folder)}: {free} MB are free, but a new ledger needs {needed} MB: free space, or set "
            "FUNDLEDGER_DATA_DIR to a larger disk"
        )
