"""What was run in this process: for the row of the daemon, and for the metrics."""

import time

import msgspec

from fundledger.daemons.daemon import Ran


class Row(msgspec.Struct, frozen=True):
    """As `sql/beat.sql` takes it: counts since the last time, ages in seconds."""

    runs: int
    failures: int
    done: int
    lag_s: float
    started_s: float | None
    success_s: float | None
    error: str | None


class Tally:
    """Of one daemon. Whoever leads by other means than a lease tells it each run."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.runs = 0
        self.failures = 0
        self.done = 0
        self.lag_s = 0.0
        self._error: str | None = None
        self._started_at: float | None = None
        self._succeeded_at: float | None = None
        self._told = (0, 0, 0)

    def started(self) -> None:
        self._started_at = time.monotonic()

    def ran(self, ran: Ran) -> None:
        self.runs += 1
        self.done += ran.done
        self.lag_s = ran.lag_s
        self._error = None
        self._succeeded_at = time.monotonic()

    def failed(self, error: BaseException) -> None:
        self.failures += 1
        self._error = f"{type(error).__name__}: {error}"[:1000].replace("\x00", "")

    @property
    def is_new(self) -> bool:
        """Whether anything was run since the last row that was written."""
        return (self.runs, self.failures, self.done) != self._told

    def row(self) -> tuple[Row, tuple[int, int, int]]:
        """What was run since the last row that was written, and what to say `written` with."""
        now = time.monotonic()
        counts = (self.runs, self.failures, self.done)
        runs, failures, done = (a - b for a, b in zip(counts, self._told, strict=True))
        started_s = None if self._started_at is None else now - self._started_at
        success_s = now - self._succeeded_at if runs and self._succeeded_at is not None else None
        return Row(runs, failures, done, self.lag_s, started_s, success_s, self._error), counts

    def written(self, counts: tuple[int, int, int]) -> None:
        self._told = counts
