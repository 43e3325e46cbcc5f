"""Sampler of /metrics during a benchmark run."""

import re
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from benchmarks.runs import BenchFault

_LINE = re.compile(r"^(\w+(?:\{[^}]*\})?) (\S+)$", re.MULTILINE)


def series(text: str, prefixes: Sequence[str]) -> dict[str, float]:
    """Return the values of the series whose names begin with one of `prefixes`. A key has the form `name{labels}`."""
    return {name: float(value) for name, value in _LINE.findall(text) if name.startswith(tuple(prefixes))}


class Watch:
    """Sampler of /metrics. `samples` are `(perf_counter_ns of the response, series)`. Failed reads are skipped."""

    def __init__(self, read: Callable[[float], str], prefixes: Sequence[str], every_s: float) -> None:
        self.samples: list[tuple[int, dict[str, float]]] = []
        self._read = read
        self._prefixes = prefixes
        self._every_s = every_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()

    def greatest(self, name: str) -> float | None:
        """Return the maximum of a series over all samples and labels, None if there are no samples."""
        seen = [value for _, of in self.samples for key, value in of.items() if key.partition("{")[0] == name]
        return max(seen, default=None)

    def _run(self) -> None:
        while not self._over.wait(self._every_s):
            try:
                text = self._read(2.0)
            except BenchFault:
                continue
            self.samples.append((time.perf_counter_ns(), series(text, self._prefixes)))
