"""What is printed for a person, and where log lines go. A terminal that was closed or halted, or a pipe that ended or
whose reader has stopped, ends nothing and holds up nothing.
"""

import atexit
import os
import sys
from functools import cache
from typing import Final, TextIO

from fundledger.app.line_writer import LineWriter

OUT: Final = 1
ERROR: Final = 2
_STANDARD = (0, OUT, ERROR)


@cache
def writer_of(descriptor: int) -> LineWriter:
    """The one writer of standard output or standard error in this process. The end of the process flushes it."""
    writer = LineWriter(descriptor)
    atexit.register(writer.flush)
    return writer


def is_standard(stream: TextIO | None, original: TextIO | None) -> bool:
    """Return whether a stream is the one that the process began with, and not one in its place."""
    return stream is not None and stream is original


def say(text: str) -> None:
    """Print on standard output. Never raises and never blocks: what cannot be printed is lost."""
    if is_standard(sys.stdout, sys.__stdout__):
        writer_of(OUT).write(f"{text}\n")
    else:
        _print(text, sys.stdout, OUT)


def complain(text: str) -> None:
    """Print on standard error, likewise, but wait a moment until it is there."""
    if is_standard(sys.stderr, sys.__stderr__):
        writer_of(ERROR).write(f"{text}\n")
        writer_of(ERROR).flush()
    else:
        _print(text, sys.stderr, ERROR)


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


def _print(text: str, stream: TextIO | None, descriptor: int) -> None:
    try:
        print(text, file=stream, flush=True)
    except (OSError, ValueError):
        # Else the interpreter tries again at its end, and ends with status 120.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, descriptor)
        os.close(null)
