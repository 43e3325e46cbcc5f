"""Service roles of the embedded Postgres. The superuser only creates and migrates databases.

A role reads and writes rows of its own database. It owns nothing, so it cannot change or disable a guard. It has no
access to files and programs of the machine, or to the database of the other service. Its password is generated at each
start and stored in no file.
"""

import secrets
from typing import Final
from urllib.parse import quote, urlsplit

import asyncpg

from fundledger.app.host.postgres.identity import ACCOUNT, FUND
from fundledger.database.statements import load

ROLES: Final = {ACCOUNT: "fundledger_account_service", FUND: "fundledger_fund_service"}
SQL = load("fundledger.app.host")


async def service_dsn(dsn: str, which: str) -> str:
    """Return the DSN of a service's role for a migrated database of the embedded server.

    `dsn`: the DSN of the superuser. Creates or updates the role and its rights. Raises OSError, asyncpg errors.
    """
    role, password = ROLES[which], secrets.token_hex(24)
    connection = await asyncpg.connect(dsn, timeout=10)
    try:
        async with connection.transaction():
            for statement in ("make_role", "restrict_role"):
                command = await connection.fetchval(SQL[statement], role, password)
                if command is not None:
                    await connection.execute(command)
            await connection.execute(SQL[f"grant_{which}"])
    finally:
        await connection.close()
    parts = urlsplit(dsn)
    return parts._replace(netloc=f"{quote(role)}:{password}@").geturl()
