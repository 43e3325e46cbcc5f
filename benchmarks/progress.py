"""Progress output of the benchmarks on standard error: a bar for each running step, then a line with its result."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

_TERMINAL_EVERY_S = 0.5
_LOG_EVERY_S = 10.0
_BAR = 24


class Step:
    """A step that takes `seconds`, has `total` parts, or has an unknown length. At its end `result` is printed."""

    def __init__(self, label: str, seconds: float | None, total: int | None) -> None:
        self.label = label
        self.result = ""
        self.done = 0
        self._seconds = seconds
        self._total = total
        self._started = time.monotonic()

    def advance(self, count: int = 1) -> None:
        self.done += count

    def watch(self, items: Iterator[bytes]) -> Iterator[bytes]:
        """Yield the items. Each item counts as one finished part."""
        for item in items:
            self.done += 1
            yield item

    def line(self) -> str:
        elapsed = time.monotonic() - self._started
        if self._total:
            share, told = self.done / self._total, f"{self.done:,} of {self._total:,}"
        elif self._seconds:
            share, told = elapsed / self._seconds, f"{elapsed:.0f} of {self._seconds:.0f} s"
        else:
            return f"{self.label}  {elapsed:.0f} s"
        filled = round(min(share, 1.0) * _BAR)
        return f"{self.label}  [{'#' * filled}{'.' * (_BAR - filled)}] {told}"

    def last_line(self) -> str:
        return f"{self.label}  {self.result or 'done'}  ({time.monotonic() - self._started:.1f} s)"


class Progress:
    """Progress output: a bar on a terminal, otherwise a line every ten seconds and at the end of each step."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._terminal = self._stream.isatty()

    def say(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    @contextmanager
    def step(self, label: str, *, seconds: float | None = None, total: int | None = None) -> Iterator[Step]:
        step = Step(label, seconds, total)
        over = threading.Event()
        shower = threading.Thread(target=self._show, args=(step, over), daemon=True)
        shower.start()
        try:
            yield step
        except BaseException:
            step.result = "interrupted"
            raise
        finally:
            over.set()
            shower.join()
            start = "\r\x1b[2K" if self._terminal else ""
            self.say(f"{start}{step.last_line()}")

    def _show(self, step: Step, over: threading.Event) -> None:
        while not over.wait(_TERMINAL_EVERY_S if self._terminal else _LOG_EVERY_S):
            if self._terminal:
                print(f"\r\x1b[2K{step.line()}", end="", file=self._stream, flush=True)
            else:
                self.say(step.line())
