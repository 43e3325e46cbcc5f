"""Protection of the memory of a process that holds keys: no core dumps, no reads by other processes of the user."""

import ctypes
import resource
from typing import Final

_PR_SET_DUMPABLE: Final = 4


def forbid_core_dumps() -> None:
    """Forbid core dumps of this process and its children, because a core dump would contain the keys."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def hide_memory() -> None:
    """Forbid core dumps, and reads of this process's memory by other processes of the same user.

    Root can still read the memory: see docs/reference/processes.md.
    """
    forbid_core_dumps()
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
