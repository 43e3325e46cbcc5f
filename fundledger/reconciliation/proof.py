"""Reconciliation: runner of the checks. They run one after the other, and the failure of a check does not affect the
others.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any, NamedTuple

from fundledger.reconciliation.reading import Connection
from fundledger.reconciliation.report import Check, Report

Progress = Callable[[str, int], None]


def quiet(_: str, __: int) -> None:
    """Ignore the progress of a proof."""


class SqlCheck(NamedTuple):
    """A check that is one SQL query. Each row is a difference, and the column `total` is the number of all differences.

    `counted`: the column of counts.sql that has the number of examined rows, None if no column has it. `subject`,
    `expected` and `actual` are format strings for the columns of a row.
    """

    name: str
    counted: str | None
    subject: str
    expected: str = "none"
    actual: str = "found"


class Proof:
    """A report under construction. Each check is added to the report before it is made, so that a failed check is also
    reported.
    """

    def __init__(self, progress: Progress = quiet) -> None:
        self.report = Report(True, [], 0, 0, 0, {}, 0.0)
        self.progress = progress
        self._started = time.monotonic()

    async def make(
        self,
        names: Sequence[str],
        connections: Sequence[Connection],
        check: Callable[..., Awaitable[None]],
        *arguments: Any,
    ) -> None:
        """Make the checks with these names: call `check(checks, *arguments)` in savepoints on `connections`.

        If the report already has a check with the name, that check is extended. An exception becomes the error of the
        checks, and the outer transactions continue as if the checks had not been made. Raises asyncpg's exception if a
        connection is lost.
        """
        checks = [self._check(name) for name in names]
        try:
            async with AsyncExitStack() as savepoints:
                for connection in connections:
                    await savepoints.enter_async_context(connection.transaction())
                await check(checks, *arguments)
        except Exception as error:
            for failed in checks:
                failed.failed(error)
            if isinstance(error, OSError) or any(connection.is_closed() for connection in connections):
                raise

    def _check(self, name: str) -> Check:
        for check in self.report.checks:
            if check.name == name:
                return check
        self.report.checks.append(Check(name))
        return self.report.checks[-1]

    def finished(self) -> Report:
        self.report.elapsed_s = round(time.monotonic() - self._started, 3)
        self.report.ok = self.report.error is None and all(check.ok for check in self.report.checks)
        return self.report


async def run_sql_check(
    checks: Sequence[Check],
    connection: Connection,
    statement: str,
    of: SqlCheck,
    size: int = 0,
    arguments: Sequence[object] = (),
) -> None:
    """Report the rows of a query as differences. Differences beyond the limit of the query are counted.

    `checks` has one element. `size` is the number of examined rows. `arguments`: those of the query.
    """
    (check,) = checks
    check.rows += size
    rows = await connection.fetch(statement, *arguments)
    for row in rows:
        check.differs(of.subject.format(**row), of.expected.format(**row), of.actual.format(**row))
    if rows:
        check.found += rows[0]["total"] - len(rows)
