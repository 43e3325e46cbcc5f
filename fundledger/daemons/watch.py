"""The dead man's switch: every process that watches sees all daemons, whoever runs them, and tells who is overdue."""

import logging
import time
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

import asyncpg
import msgspec

from fundledger.daemons.daemon import SQL
from fundledger.daemons.tally import Tally

TOLD_EVERY_S: Final = 60.0
_log = logging.getLogger(__name__)


class Standing(msgspec.Struct, frozen=True):
    """A daemon's row. `age_s`: how long ago it succeeded, or became known, when it was looked at."""

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


class Counted(msgspec.Struct):
    """For the metrics, by daemon: gauges of its row, and the `runs` of this process, by `NAME OUTCOME`."""

    lag_s: dict[str, float] = {}
    last_success: dict[str, float] = {}
    overdue: dict[str, int] = {}
    runs: dict[str, int] = {}

    def add(self, other: "Counted") -> None:
        """Of another process: who looked last knows best, and nobody overlooks an alarm."""
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
    """One a process. While the database does not answer, what was seen last goes on ageing."""

    def __init__(self) -> None:
        self._seen: list[Standing] = []
        self._seen_at = time.monotonic()
        self._told_at: dict[str, float] = {}

    async def look(self, pool: "asyncpg.Pool[asyncpg.Record]") -> list[Standing]:
        """Raises what asyncpg raises."""
        self._seen = standings(await pool.fetch(SQL["look"]))
        self._seen_at = time.monotonic()
        return self._seen

    def now(self) -> list[Standing]:
        """What was seen last, as old as it is by now."""
        passed = time.monotonic() - self._seen_at
        return [msgspec.structs.replace(one, age_s=one.age_s + passed) for one in self._seen]

    def tell(self) -> None:
        """Log each daemon that is overdue, once a minute."""
        now = time.monotonic()
        for one in self.now():
            if not one.overdue:
                self._told_at.pop(one.name, None)
            elif now - self._told_at.get(one.name, -TOLD_EVERY_S) >= TOLD_EVERY_S:
                self._told_at[one.name] = now
                _log.critical(
                    "a daemon is overdue: see docs/daemons.md",
                    extra={
                        "daemon": one.name,
                        "silent_s": round(one.age_s, 1),
                        "bound_s": one.alarm_after_s,
                        "holder": one.holder,
                        "last_error": one.last_error,
                    },
                )

    def counted(self, tallies: Iterable[Tally]) -> Counted:
        """For the metrics: what this process sees, and what it ran."""
        counted = Counted()
        for one in self.now():
            counted.lag_s[one.name] = one.lag_s
            if one.last_success_at is not None:
                counted.last_success[one.name] = one.last_success_at.timestamp()
            counted.overdue[one.name] = int(one.overdue)
        for tally in tallies:
            counted.runs[f"{tally.name} succeeded"] = tally.runs
            counted.runs[f"{tally.name} failed"] = tally.failures
        return counted


def standings(rows: Iterable[Any]) -> list[Standing]:
    """The rows of `sql/look.sql`."""
    return [Standing(**row) for row in rows]
