"""What is printed for a person: a terminal that was closed, or a pipe that ended, ends nothing."""

import os
import sys

_STANDARD = (0, 1, 2)


def say(text: str) -> None:
    """Print on standard output. Never raises: what cannot be printed is lost, and so is all that follows."""
    try:
        print(text, flush=True)
    except (OSError, ValueError):
        _discard(1)


def complain(text: str) -> None:
    """Print on standard error, likewise."""
    try:
        print(text, file=sys.stderr, flush=True)
    except (OSError, ValueError):
        _discard(2)


def open_standard_files() -> None:
    """Open what the caller closed of standard input, output and error: the first file that is opened would become it,
    and get what children print.
    """
    for number in _STANDARD:
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(number, True)


def _discard(number: int) -> None:
    # Else the interpreter tries again at its end, and ends with status 120.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, number)
    os.close(null)
