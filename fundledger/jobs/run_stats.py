"""Framework for background jobs: statistics of the runs in this process, for the database rows of jobs
and for metrics.
"""

import time

import msgspec

from fundledger.jobs.job import Ran


class Row(msgspec.Struct, frozen=True):
    """The arguments of `sql/beat.sql` for one job. Counts begin after the last recorded row. `started_s` and
    `success_s` are the seconds since the last run began and since the last successful run ended.
    """

    runs: int
    failures: int
    done: int
    lag_s: float
    started_s: float | None
    success_s: float | None
    error: str | None


class RunStats:
    """The statistics of the runs of one job in this process."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.runs = 0
        self.failures = 0
        self.done = 0
        self.lag_s = 0.0
        self._error: str | None = None
        self._started_at: float | None = None
        self._succeeded_at: float | None = None
        self._recorded = (0, 0, 0)

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

    def row(self) -> tuple[Row, tuple[int, int, int]]:
        """Return `(row, counts)`: the runs since the last recorded row, and the counts that the caller passes to
        `written` after it has recorded the row.
        """
        now = time.monotonic()
        counts = (self.runs, self.failures, self.done)
        runs, failures, done = (a - b for a, b in zip(counts, self._recorded, strict=True))
        started_s = None if self._started_at is None else now - self._started_at
        success_s = now - self._succeeded_at if runs and self._succeeded_at is not None else None
        return Row(runs, failures, done, self.lag_s, started_s, success_s, self._error), counts

    def written(self, counts: tuple[int, int, int]) -> None:
        self._recorded = counts
