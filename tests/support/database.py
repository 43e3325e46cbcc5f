"""Databases for tests: one embedded Postgres, a migrated template for each layout, a copy of it for each test."""

import asyncio
import contextlib
from pathlib import Path

import asyncpg

from fundledger.app.host.postgres.server import ROLE, EmbeddedPostgres
from fundledger.fund.store import migrate as fund
from fundledger.ledger.store.accounts import Layout
from fundledger.ledger.store.migrate import migrate
from fundledger.reconciliation.checks import verify
from fundledger.reconciliation.report import Report
from fundledger.security.keys import Keys

ONE_SHARD = Layout(shards=1, platform_slots=2)


class Databases:
    """Creates databases on one server, and drops them."""

    def __init__(self, server: EmbeddedPostgres, log: Path) -> None:
        self.server = server
        self.log = log
        self._templates: dict[Layout, str] = {}
        self._fund_template: str | None = None
        self._standing: dict[str, str] = {}
        self._made = 0
        self._kept: tuple[asyncio.AbstractEventLoop, asyncpg.Connection[asyncpg.Record]] | None = None
        self._one_at_a_time = asyncio.Lock()

    def dsn(self, name: str) -> str:
        return self.server._dsn(name)

    async def new(self, layout: Layout = ONE_SHARD) -> str:
        """Return the DSN of an empty database with the schema of this version."""
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
        """Return the DSN of an empty fund database with the schema of this version."""
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
        """Return the DSN of a database for tests that roll back all their changes. The caller must not drop it.

        With None, it is a fund database.
        """
        key = f"standing_{layout.shards}_{layout.platform_slots}" if layout else "standing_fund"
        if key not in self._standing:
            self._standing[key] = await (self.new(layout) if layout else self.new_fund())
        return self._standing[key]

    async def empty(self, template: str = "template1") -> str:
        """Return the DSN of a copy of a template; a copy of `template1` has no schema of the project."""
        self._made += 1
        name = f"test_{self._made}"
        # Without waits for the disk, this strategy takes a third less time than a copy through the log.
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

    async def open(self) -> None:
        """Keep a connection for `new` and `drop`. A new connection costs a third of the time of a new database."""
        self._kept = asyncio.get_running_loop(), await asyncpg.connect(self.dsn("postgres"))
        # The rounds of `scram_iterations` are stored with a password.
        password = self.server._password_file.read_text().strip()
        await self._execute(f"ALTER ROLE {ROLE} PASSWORD '{password}'")

    async def close(self) -> None:
        if self._kept:
            await self._kept[1].close()

    async def _execute(self, statement: str) -> None:
        # The connection belongs to one event loop. A state machine of hypothesis has another one.
        if self._kept and self._kept[0] is asyncio.get_running_loop():
            async with self._one_at_a_time:
                await self._kept[1].execute(statement)
            return
        connection = await asyncpg.connect(self.dsn("postgres"))
        try:
            await connection.execute(statement)
        finally:
            await connection.close()


async def prove_books(dsn: str, keys: Keys) -> Report:
    """Fail the calling test unless the books verify."""
    report = await verify(dsn, keys)
    assert report.ok, findings(report)
    return report


def findings(report: Report) -> list[str]:
    """Return the findings of a verification, one line each."""
    return [
        f"{check.name}: {finding.subject}: expected {finding.expected}, found {finding.actual}"
        for check in report.checks
        for finding in check.findings
    ]
