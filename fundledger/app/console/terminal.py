"""Terminal output: messages for a person, and the writers of log lines.

A terminal that was closed or suspended, or a pipe whose reader has ended or stopped, neither ends nor delays the
process.
"""

import atexit
import os
import sys
from functools import cache
from typing import Final, TextIO

from fundledger.app.console.line_writer import LineWriter

OUT: Final = 1
ERROR: Final = 2
_STANDARD = (0, OUT, ERROR)


@cache
def writer_of(descriptor: int) -> LineWriter:
    """Return the only writer of standard output or standard error in this process. It is flushed at the end."""
    writer = LineWriter(descriptor)
    atexit.register(writer.flush)
    return writer


def is_standard(stream: TextIO | None, original: TextIO | None) -> bool:
    """Return whether a stream is the one that the process began with, and not a replacement."""
    return stream is not None and stream is original


def say(text: str) -> None:
    """Print on standard output. Never raises and never blocks: text that cannot be printed is lost."""
    if is_standard(sys.stdout, sys.__stdout__):
        writer_of(OUT).write(f"{text}\n")
    else:
        _print(text, sys.stdout, OUT)


def complain(text: str) -> None:
    """Print on standard error like `say`, but wait up to FLUSH_S until the text is written."""
    if is_standard(sys.stderr, sys.__stderr__):
        writer_of(ERROR).write(f"{text}\n")
        writer_of(ERROR).flush()
    else:
        _print(text, sys.stderr, ERROR)


def open_standard_files() -> None:
    """Open standard input, output and error, where the caller closed them, on the null device.

    Otherwise the next opened file would get the number of a closed one, and would receive the output of children.
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
        # Otherwise the interpreter would write again when it ends, and would exit with status 120.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, descriptor)
        os.close(null)
