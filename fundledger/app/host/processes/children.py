"""Start of child processes of `serve`: reduced environment, and a signal when the parent ends."""

import ctypes
import os
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
_libc: Final = ctypes.CDLL(None)


def environment() -> dict[str, str]:
    """Return the environment for a child process: variables of this process, but no addresses, passwords or keys."""
    return {name: value for name, value in os.environ.items() if name in KEPT or name.startswith(KEPT_PREFIXES)}


def end_with_parent(number: signal.Signals) -> Callable[[], None]:
    """Return a `preexec_fn` that asks the kernel to send `number`, a signal, to the child when the parent has ended.

    The function runs after the change of user, because the kernel clears this request at that change.
    """

    def prepare() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, number)

    return prepare
