"""Runner of reconciliation checks: one after the other, each isolated from the failures of others."""

import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any, NamedTuple

from fundledger.reconciliation.reading import Connection
from fundledger.reconciliation.report import Check, Report

Progress = Callable[[str, int], None]


def quiet(_: str, __: int) -> None:
    """Report no progress."""


class SqlCheck(NamedTuple):
    """A check by one SQL query: each row is a difference, and the column `total` counts all differences.

    `counted`: the column of the row counts that has the number of examined rows. The texts are formatted with a row's
    columns.
    """

    name: str
    counted: str | None
    subject: str
    expected: str = "none"
    actual: str = "found"


class Proof:
    """A report under construction. Each check is added before it is made, so that a failure leaves a report."""

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
        """Make the checks of these names by `check(checks, *arguments)`, in savepoints of `connections`.

        A check that is already in the report is extended. An exception becomes the checks' error, and the outer
        transactions continue as if the checks had not been made. Raises asyncpg's exception if a connection is lost.
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
    checks: Sequence[Check], connection: Connection, statement: str, of: SqlCheck, size: int = 0
) -> None:
    """Report the rows of a query as differences, and count the rows beyond its limit.

    `checks` has one element; `size` is the number of examined rows.
    """
    (check,) = checks
    check.rows += size
    rows = await connection.fetch(statement)
    for row in rows:
        check.differs(of.subject.format(**row), of.expected.format(**row), of.actual.format(**row))
    if rows:
        check.found += rows[0]["total"] - len(rows)
