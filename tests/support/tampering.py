"""Helpers for tests of tampering: schemas without guards, and the findings of a report."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from fundledger.reconciliation.report import Finding, Report

UNGUARDED = """
DO $$
DECLARE of record;
BEGIN
    FOR of IN SELECT c.conname, c.conrelid::regclass AS name FROM pg_constraint c
              WHERE c.connamespace = 'SCHEMA'::regnamespace AND c.contype = 'c' LOOP
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', of.name, of.conname);
    END LOOP;
    FOR of IN SELECT a.attname, a.attrelid::regclass AS name FROM pg_attribute a JOIN pg_class r ON r.oid = a.attrelid
              WHERE r.relnamespace = 'SCHEMA'::regnamespace AND r.relkind = 'r' AND a.attnum > 0 AND a.attnotnull
              AND a.attidentity = '' AND NOT EXISTS (SELECT 1 FROM pg_index i WHERE i.indrelid = r.oid AND i.indisprimary
              AND a.attnum = ANY (i.indkey)) LOOP
        EXECUTE format('ALTER TABLE %s ALTER COLUMN %I DROP NOT NULL', of.name, of.attname);
    END LOOP;
    FOR of IN SELECT r.oid::regclass AS name FROM pg_class r
              WHERE r.relnamespace = 'SCHEMA'::regnamespace AND r.relkind = 'r' LOOP
        EXECUTE format('ALTER TABLE %s DISABLE TRIGGER ALL', of.name);
    END LOOP;
END $$
"""


def unguarded(schema: str) -> str:
    """Return a statement that removes the checks, NOT NULLs and triggers of a schema."""
    return UNGUARDED.replace("SCHEMA", schema)


@contextlib.asynccontextmanager
async def any_state(fund: Any) -> AsyncIterator[Any]:
    """Open a transaction in which an order may get any state. The triggers are enabled again at its end.

    `fund`: a connection to a fund database, or a pool.
    """
    triggers = ("orders_first_state", "orders_transition")
    async with contextlib.AsyncExitStack() as stack:
        connection = await stack.enter_async_context(fund.acquire()) if hasattr(fund, "acquire") else fund
        await stack.enter_async_context(connection.transaction())
        for trigger in triggers:
            await connection.execute(f"ALTER TABLE fund.orders DISABLE TRIGGER {trigger}")
        yield connection
        for trigger in triggers:
            await connection.execute(f"ALTER TABLE fund.orders ENABLE ALWAYS TRIGGER {trigger}")


def findings_of(report: Report) -> list[tuple[str, Finding]]:
    """Return each finding with the name of its check."""
    return [(check.name, finding) for check in report.checks for finding in check.findings]


def errors_of(report: Report) -> dict[str, str]:
    return {check.name: check.error for check in report.checks if check.error is not None}
