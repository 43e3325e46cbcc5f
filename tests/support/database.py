"""Databases for tests: one embedded Postgres, a migrated template for each layout, a copy of it for each test."""

import contextlib
from pathlib import Path

import asyncpg

from fundledger.app.postgres import EmbeddedPostgres
from fundledger.fund import migrate as fund
from fundledger.ledger.accounts import Layout
from fundledger.ledger.migrate import migrate
from fundledger.reconciliation.checks import verify
from fundledger.reconciliation.report import Report
from fundledger.security.keys import Keys

ONE_SHARD = Layout(shards=1, platform_slots=2)


class Databases:
    """Makes databases on one server, and drops them."""

    def __init__(self, server: EmbeddedPostgres, log: Path) -> None:
        self.server = server
        self.log = log
        self._templates: dict[Layout, str] = {}
        self._fund_template: str | None = None
        self._standing: dict[str, str] = {}
        self._made = 0

    def dsn(self, name: str) -> str:
        return self.server._dsn(name)

    async def new(self, layout: Layout = ONE_SHARD) -> str:
        """The DSN of a database with the schema of this version, and nothing in it."""
        template = self._templates.get(layout)
        if template is None:
            template = f"template_{layout.shards}_{layout.platform_slots}"
            await self._execute(f"CREATE DATABASE {template}")
            connection = await asyncpg.connect(self.dsn(template))
            try:
                await migrate(connection, layout)
            finally:
                await connection.close()
            self._templates[layout] = template
        return await self.empty(template)

    async def new_fund(self) -> str:
        """The DSN of a fund database with the schema of this version, and nothing in it."""
        if self._fund_template is None:
            await self._execute("CREATE DATABASE template_fund")
            connection = await asyncpg.connect(self.dsn("template_fund"))
            try:
                await fund.migrate(connection)
            finally:
                await connection.close()
            self._fund_template = "template_fund"
        return await self.empty(self._fund_template)

    async def standing(self, layout: Layout | None = ONE_SHARD) -> str:
        """The DSN of a database for tests that roll back all that they do; None: of a fund database. Not to be dropped."""
        key = f"standing_{layout.shards}_{layout.platform_slots}" if layout else "standing_fund"
        if key not in self._standing:
            self._standing[key] = await (self.new(layout) if layout else self.new_fund())
        return self._standing[key]

    async def empty(self, template: str = "template1") -> str:
        """The DSN of a copy of a template; of `template1`, it has no schema of ours."""
        self._made += 1
        name = f"test_{self._made}"
        # A third quicker than by the log, where nothing waits for the disk.
        await self._execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
        return self.dsn(name)

    async def drop(self, dsn: str) -> None:
        name = dsn.partition("@/")[2].partition("?")[0]
        await self._execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    @contextlib.asynccontextmanager
    async def a_database(self, layout: Layout = ONE_SHARD):
        dsn = await self.new(layout)
        try:
            yield dsn
        finally:
            await self.drop(dsn)

    async def _execute(self, statement: str) -> None:
        connection = await asyncpg.connect(self.dsn("postgres"))
        try:
            await connection.execute(statement)
        finally:
            await connection.close()


async def prove_books(dsn: str, keys: Keys) -> Report:
    """Fails the test that calls it unless the books are right in every respect."""
    report = await verify(dsn, keys)
    assert report.ok, findings(report)
    return report


def findings(report: Report) -> list[str]:
    """Everything that a verification found, a line each."""
    return [
        f"{check.name}: {finding.subject}: expected {finding.expected}, found {finding.actual}"
        for check in report.checks
        for finding in check.findings
    ]
