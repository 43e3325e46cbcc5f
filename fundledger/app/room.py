"""How much room a data directory needs, asked for before anything is written."""

import os
import shutil
from pathlib import Path
from typing import Final

FIRST_START_MB: Final = 256
"""Databases, their log and what it takes to make them, with little shared memory (at most `postgres.SMALL_MB`)."""
FIRST_START_LARGE_MB: Final = 1024
"""With more: the log's files are made in advance."""


class NoRoom(Exception):
    """There is too little; one line that says how much is needed."""


def free_mb(folder: Path) -> int:
    """The free space where the folder is, or will be."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free >> 20


def needed_mb(large: bool) -> int:
    """For a first start."""
    return FIRST_START_LARGE_MB if large else FIRST_START_MB


def ask_for_room(folder: Path, large: bool) -> None:
    """Raises NoRoom when the filesystem of `folder` has too little for a first start."""
    free, needed = free_mb(folder), needed_mb(large)
    if free < needed:
        raise NoRoom(
            f"{os.fspath(folder)}: {free} MB are free, a new ledger needs {needed} MB: free some, or set "
            "FUNDLEDGER_DATA_DIR to a larger disk"
        )
