"""The schema of the fund database."""

import asyncpg

from fundledger.database import migrations
from fundledger.fund.statements import SQL

PACKAGE = "fundledger.fund"


async def migrate(connection: "asyncpg.Connection[asyncpg.Record]") -> list[str]:
    """Bring the schema up to date; answers the names of what was applied. Raises SchemaFault."""
    async with connection.transaction():
        return await migrations.apply(connection, PACKAGE, SQL)
