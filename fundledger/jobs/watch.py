"""Framework for background jobs: the monitor, which reads the status of all jobs and logs overdue jobs."""

import logging
import time
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

import asyncpg
import msgspec

from fundledger.jobs.job import SQL
from fundledger.jobs.run_stats import RunStats

TOLD_EVERY_S: Final = 60.0
_log = logging.getLogger(__name__)


class Standing(msgspec.Struct, frozen=True):
    """The status row of a job. `age_s`: seconds since its last success, or since its registration if it
    had no success.
    """

    name: str
    holder: str | None
    fence: int
    taken_at: datetime | None
    alarm_after_s: float
    last_started_at: datetime | None
    last_success_at: datetime | None
    last_error: str | None
    lag_s: float
    runs: int
    failures: int
    done: int
    age_s: float

    @property
    def overdue(self) -> bool:
        return self.age_s > self.alarm_after_s

    @property
    def late(self) -> bool:
        """Whether the job runs, but its oldest item has waited longer than the bound of the job."""
        return self.lag_s > self.alarm_after_s


class Counted(msgspec.Struct):
    """Metrics of jobs. The gauges come from the rows of the jobs, by name of the job. `runs` counts the runs of this
    process, by `NAME OUTCOME`, for example `stream failed`.
    """

    lag_s: dict[str, float] = {}
    last_success: dict[str, float] = {}
    overdue: dict[str, int] = {}
    runs: dict[str, int] = {}

    def add(self, other: "Counted") -> None:
        """Merge the metrics of another process. Take the maximum of each gauge, so that no alarm is lost, and add up
        the runs.
        """
        for mine, theirs in ((self.lag_s, other.lag_s), (self.last_success, other.last_success)):
            for name, value in theirs.items():
                mine[name] = max(mine.get(name, 0.0), value)
        for name, flag in other.overdue.items():
            self.overdue[name] = max(self.overdue.get(name, 0), flag)
        for name, count in other.runs.items():
            self.runs[name] = self.runs.get(name, 0) + count

    def forget_gauges(self) -> None:
        self.lag_s, self.last_success, self.overdue = {}, {}, {}


class Watch:
    """The monitor of all jobs. Each process has one monitor. While the database does not answer, the ages in the last
    status keep growing, so a dead database also makes jobs overdue.
    """

    def __init__(self) -> None:
        self._seen: list[Standing] = []
        self._seen_at = time.monotonic()
        self._logged_at: dict[str, float] = {}

    async def look(self, pool: "asyncpg.Pool[asyncpg.Record]") -> list[Standing]:
        """Read and return the status of all jobs. Raises what asyncpg raises."""
        self._seen = standings(await pool.fetch(SQL["look"]))
        self._seen_at = time.monotonic()
        return self._seen

    def now(self) -> list[Standing]:
        """Return the last status that was read, with the current `age_s` of each job."""
        passed = time.monotonic() - self._seen_at
        return [msgspec.structs.replace(one, age_s=one.age_s + passed) for one in self._seen]

    def tell(self) -> None:
        """Log each overdue job, at most once in TOLD_EVERY_S seconds."""
        now = time.monotonic()
        for one in self.now():
            if not one.overdue:
                self._logged_at.pop(one.name, None)
            elif now - self._logged_at.get(one.name, -TOLD_EVERY_S) >= TOLD_EVERY_S:
                self._logged_at[one.name] = now
                _log.critical(
                    "background job is overdue: see docs/how-to/runbooks.md",
                    extra={
                        "event": "job_overdue",
                        "job": one.name,
                        "silent_s": round(one.age_s, 1),
                        "bound_s": one.alarm_after_s,
                        "holder": one.holder,
                        "last_error": one.last_error,
                    },
                )

    def counted(self, stats: Iterable[RunStats]) -> Counted:
        """Return the metrics: the status of all jobs, and the runs of this process."""
        counted = Counted()
        for one in self.now():
            counted.lag_s[one.name] = one.lag_s
            if one.last_success_at is not None:
                counted.last_success[one.name] = one.last_success_at.timestamp()
            counted.overdue[one.name] = int(one.overdue)
        for mine in stats:
            counted.runs[f"{mine.name} succeeded"] = mine.runs
            counted.runs[f"{mine.name} failed"] = mine.failures
        return counted


def standings(rows: Iterable[Any]) -> list[Standing]:
    """Convert rows of `sql/look.sql`: return one status for each row."""
    return [Standing(**row) for row in rows]
