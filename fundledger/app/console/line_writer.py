"""Writer of console lines in a separate thread, for standard output and standard error.

Neither a request nor the end of the process waits for a suspended terminal, or for a pipe whose reader has stopped.
"""

import logging
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

FLUSH_S: Final = 2.0
"""Maximum time in seconds for which the end of a process waits for unwritten lines."""
REPORT_EVERY_S: Final = 10.0
BYTES_MAX: Final = 1 << 20
"""Maximum number of bytes that may wait for the thread when a line below level warning is queued. If more bytes would
wait, the line is dropped.
"""
SERIOUS_BYTES_MAX: Final = 2 << 20
CRITICAL_BYTES_MAX: Final = 4 << 20
"""The higher limits for lines of level warning or error (SERIOUS_BYTES_MAX) and for critical lines. So these lines are
still queued when less important lines are dropped.
"""

Report = Callable[[int], str]
"""A function from a number of dropped lines to the line that reports it."""


class LineWriter:
    """A writer of lines to a file descriptor, in order. A line is written in one call if the descriptor accepts that.

    `write` never blocks. If too many bytes wait, a line is dropped and counted in `dropped`. When the descriptor
    accepts lines again, `report` is called with the number of dropped lines, and its result is written. A line that
    cannot be written, because the reader is gone, is dropped as well.
    """

    def __init__(self, descriptor: int, report: Report | None = None) -> None:
        self._descriptor = descriptor
        self._report = report
        self._changed = threading.Condition()
        self._lines: deque[bytes] = deque()
        self._bytes = 0
        self._writing = False
        self._thread: threading.Thread | None = None
        self._written = 0
        self._gave_up_at: int | None = None
        self._unreported = 0
        self._unreported_since = 0.0
        self.dropped = 0

    def write(self, line: str, level: int = logging.INFO) -> None:
        """Queue a line, which ends with a newline."""
        data = line.encode(errors="backslashreplace")
        with self._changed:
            if self._bytes + len(data) > _room(level) and self._bytes:
                self._drop()
                return
            self._lines.append(data)
            self._bytes += len(data)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="log writer", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def flush(self, within_s: float = FLUSH_S) -> bool:
        """Wait until all lines are written, for at most `within_s` seconds. Return whether all are written.

        If the last call waited in vain and no line has been written since then, this call does not wait.
        """
        with self._changed:
            if self._written == self._gave_up_at:
                within_s = 0
            done = self._changed.wait_for(lambda: not (self._lines or self._writing), within_s)
            self._gave_up_at = None if done else self._written
            return done

    def report_with(self, report: Report) -> None:
        """Set the function that returns the line about dropped lines."""
        self._report = report

    def _run(self) -> None:
        while True:
            with self._changed:
                self._writing = False
                self._changed.notify_all()
                while not self._lines:
                    self._changed.wait()
                line = self._lines.popleft()
                self._writing = True
            written = _write(self._descriptor, line)
            with self._changed:
                self._bytes -= len(line)
                self._written += 1
                if not written:
                    self._drop()
                else:
                    self._report_dropped()

    def _drop(self) -> None:
        if not self._unreported:
            self._unreported_since = time.monotonic()
        self.dropped += 1
        self._unreported += 1

    def _report_dropped(self) -> None:
        """Report dropped lines when all waiting lines are written, and at the latest after `REPORT_EVERY_S` seconds."""
        if not self._unreported or self._report is None:
            return
        if self._lines and time.monotonic() - self._unreported_since < REPORT_EVERY_S:
            return
        line = self._report(self._unreported).encode(errors="backslashreplace")
        self._lines.appendleft(line)
        self._bytes += len(line)
        self._unreported = 0


def _room(level: int) -> int:
    if level >= logging.CRITICAL:
        return CRITICAL_BYTES_MAX
    return SERIOUS_BYTES_MAX if level >= logging.WARNING else BYTES_MAX


def _write(descriptor: int, line: bytes) -> bool:
    """Write a line, however long that takes. Return whether the whole line was written."""
    while line:
        try:
            line = line[os.write(descriptor, line) :]
        except BlockingIOError:
            # Another process made the shared file description non-blocking.
            select.select([], [descriptor], [])
        except OSError:
            return False
    return True
