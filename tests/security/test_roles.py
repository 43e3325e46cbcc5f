"""Services run as roles without access to files, programs, guards, or the other service's database."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from fundledger.app.host.postgres.identity import ACCOUNT, FUND
from fundledger.app.host.postgres.roles import ROLES
from tests.support.client import Client
from tests.support.running import RunningService

ANY = {
    "read a file": "SELECT pg_read_file('/etc/passwd')",
    "list a folder": "SELECT pg_ls_dir('/')",
    "run a program": "COPY (SELECT 1) TO PROGRAM 'cat'",
    "run a program to read": "CREATE TEMP TABLE t (l text); COPY t FROM PROGRAM 'id'",
    "write a file": "COPY (SELECT 1) TO '/tmp/roles-test'",
    "read a file into a large object": "SELECT lo_import('/etc/passwd')",
    "make a role": "CREATE ROLE another SUPERUSER LOGIN",
    "become superuser": "ALTER ROLE CURRENT_USER SUPERUSER",
    "switch triggers off": "SET session_replication_role = replica",
    "change a setting": "ALTER SYSTEM SET fsync = off",
    "make an extension": "CREATE EXTENSION pg_stat_statements",
    "make a table": "CREATE TABLE public.t (i int)",
    "read passwords": "SELECT rolpassword FROM pg_authid",
}
OF = {
    ACCOUNT: {
        "delete entries": "DELETE FROM ledger.entries",
        "truncate entries": "TRUNCATE ledger.entries",
        "change entries": "UPDATE ledger.entries SET amount = 1",
        "delete vouchers": "DELETE FROM ledger.vouchers",
        "delete sub-accounts": "DELETE FROM ledger.sub_accounts",
        "disable a trigger": "ALTER TABLE ledger.entries DISABLE TRIGGER ALL",
        "drop a constraint": "ALTER TABLE ledger.vouchers DROP CONSTRAINT vouchers_sum_to_zero",
        "replace a guard": "CREATE OR REPLACE FUNCTION ledger.refuse_change() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
        "drop a table": "DROP TABLE ledger.outbox",
        "make a table in the schema": "CREATE TABLE ledger.t (i int)",
        "change the layout": "UPDATE ledger.settings SET shards = 9",
        "forge a fingerprint": "INSERT INTO ledger.key_fingerprints (version, fingerprint) VALUES (9, 'x')",
        "change migrations": "DELETE FROM public.fundledger_migrations",
    },
    FUND: {
        "delete orders": "DELETE FROM fund.orders",
        "truncate events": "TRUNCATE fund.events",
        "change events": "UPDATE fund.events SET seq = 1",
        "change a fee rule": "UPDATE fund.fee_rules SET fixed = 0",
        "change a calendar": "UPDATE fund.calendars SET timezone = 'UTC'",
        "change an end": "UPDATE fund.ends SET day = day - 1",
        "reopen a day": "DELETE FROM fund.day_closings",
        "change the history of merchants": "UPDATE fund.merchant_events SET by = 'x'",
        "delete a merchant": "DELETE FROM fund.merchants",
        "disable a trigger": "ALTER TABLE fund.events DISABLE TRIGGER ALL",
        "drop a constraint": "ALTER TABLE fund.orders DROP CONSTRAINT orders_state",
        "drop a table": "DROP TABLE fund.payouts",
        "forge a fingerprint": "INSERT INTO fund.key_fingerprints (version, fingerprint) VALUES (9, 'x')",
    },
}
CASES = [(which, name, text) for which, own in OF.items() for name, text in {**ANY, **own}.items()]


@pytest.fixture
async def as_role(
    platform: RunningService, request: pytest.FixtureRequest
) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    which = request.param
    connection = await asyncpg.connect(platform.dsn if which == ACCOUNT else platform.fund_dsn)
    await connection.execute(f"SET SESSION AUTHORIZATION {ROLES[which]}")
    yield connection
    await connection.close()


@pytest.mark.parametrize(
    ("as_role", "statement"),
    [(w, t) for w, _, t in CASES],
    ids=[f"{w}: {n}" for w, n, _ in CASES],
    indirect=["as_role"],
)
async def test_a_role_cannot(as_role: "asyncpg.Connection[asyncpg.Record]", statement: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await as_role.execute(statement)


@pytest.mark.parametrize("as_role", [ACCOUNT, FUND], indirect=True)
async def test_a_role_owns_nothing_and_connects_to_its_own_database_only(as_role) -> None:
    assert await as_role.fetchval("SELECT count(*) FROM pg_class WHERE relowner = current_user::regrole") == 0
    rows = await as_role.fetch(
        "SELECT datname FROM pg_database WHERE datname LIKE 'fundledger%' AND has_database_privilege(datname, 'CONNECT')"
    )
    assert [row["datname"] for row in rows] == [await as_role.fetchval("SELECT current_database()")]
    special = "SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls FROM pg_roles WHERE rolname = current_user"
    assert await as_role.fetchval(special) is False


async def test_every_connection_of_the_services_is_of_a_role(platform: RunningService) -> None:
    async with Client(platform.fund_url, platform.token) as client:
        made = await client.post("/v1/merchants", {"id": "roles", "name": "A shop", "currency": "CNY"})
        assert made.status == 201, made
    connection = await asyncpg.connect(platform.dsn)
    try:
        rows = await connection.fetch(
            "SELECT usename, datname, application_name FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND application_name LIKE 'fundledger%'"
        )
    finally:
        await connection.close()
    expected = {"fundledger_account": ROLES[ACCOUNT], "fundledger_fund": ROLES[FUND]}
    assert len(rows) > 5
    assert [tuple(row) for row in rows if row["usename"] != expected[row["datname"]]] == []
