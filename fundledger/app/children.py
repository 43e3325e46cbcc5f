"""How `serve` starts other processes: with a reduced environment, without core dumps, and not longer than it lives."""

import ctypes
import os
import resource
import signal
from collections.abc import Callable
from typing import Final

KEPT: Final = frozenset(
    {
        "FUNDLEDGER_DATA_DIR",
        "HOME",
        "LANG",
        "LANGUAGE",
        "LD_LIBRARY_PATH",
        "LD_PRELOAD",
        "PATH",
        "SSL_CERT_DIR",
        "SSL_CERT_FILE",
        "TMPDIR",
        "TZ",
        "TZDIR",
        "VIRTUAL_ENV",
    }
)
KEPT_PREFIXES: Final = ("LC_", "PYTHON", "MALLOC_")
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_libc: Final = ctypes.CDLL(None)


def environment() -> dict[str, str]:
    """What a child process gets of this one's environment: no address, password or key of anything."""
    return {name: value for name, value in os.environ.items() if name in KEPT or name.startswith(KEPT_PREFIXES)}


def end_with_parent(number: signal.Signals) -> Callable[[], None]:
    """What a child runs before it executes its program: the kernel sends it `number` when its parent is gone.

    After the change of user: the kernel clears the setting at that change.
    """

    def prepare() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, number)

    return prepare


def forbid_core_dumps() -> None:
    """For this process and its children: a core would have the keys in it."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def hide_memory() -> None:
    """Let no process of the same user read this one's memory, and write no core; root may (see docs/operations.md)."""
    forbid_core_dumps()
    _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
