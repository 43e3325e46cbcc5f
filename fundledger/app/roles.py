"""The roles of the embedded Postgres that services run as. The superuser makes databases and migrates, nothing else.

A role reads and writes rows of its own database. It owns nothing, so it can neither change nor switch off a guard; it
reaches no file and no program of the machine, and not the database of the other service. Its password is made anew at
each start and is in no file.
"""

import secrets
from typing import Final
from urllib.parse import quote, urlsplit

import asyncpg

from fundledger.app.identity import ACCOUNT, FUND
from fundledger.database.statements import load

ROLES: Final = {ACCOUNT: "fundledger_account_service", FUND: "fundledger_fund_service"}
SQL = load("fundledger.app")


async def service_dsn(dsn: str, which: str) -> str:
    """The DSN of a service's role for a migrated database of the embedded server; `dsn` is that of its superuser. The
    role and its rights are made, or brought up to date. Raises OSError and what asyncpg raises.
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
