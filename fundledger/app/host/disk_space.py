"""Start-up check of the host: disk space for a new data directory of the embedded Postgres."""

import os
import shutil
from pathlib import Path
from typing import Final

FIRST_START_MB: Final = 256
"""Disk space that a first start needs for databases, log and initdb, if shared memory is at most SMALL_MB."""
FIRST_START_LARGE_MB: Final = 1024
"""Disk space that a first start needs with more shared memory. Write-ahead log files are then preallocated."""


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
