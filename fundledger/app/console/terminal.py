"""Console messages for a person at a terminal, and the writers of standard output and standard error.

A closed or suspended terminal neither ends nor delays the process. The same holds for a pipe whose reader has ended or
stopped.
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
    """Return this process's only writer of standard output or standard error. The end of the process flushes it."""
    writer = LineWriter(descriptor)
    atexit.register(writer.flush)
    return writer


def is_standard(stream: TextIO | None, original: TextIO | None) -> bool:
    """Return whether a stream is the original stream of the process, and not a replacement."""
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
    """Open the null device as standard input, output or error, wherever the caller has closed that file.

    Otherwise the next opened file would get the number of a closed file, and would receive the output of children.
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
        # The null device replaces the stream. Otherwise the interpreter writes again at its end and exits with 120.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, descriptor)
        os.close(null)
