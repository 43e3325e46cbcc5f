"""Postgres's plans of statements."""

from collections.abc import Iterator
from typing import Any

import asyncpg
import msgspec

from fundledger.ledger.store.session import SETTINGS


async def plan_of(
    connection: "asyncpg.Connection[asyncpg.Record]", statement: str, *, like_a_lane: bool
) -> dict[str, Any]:
    """Return the generic plan of a statement, which does not depend on its parameters.

    `like_a_lane`: plan with the settings of a posting session, otherwise with those of the server.
    """
    async with connection.transaction():
        for name, value in SETTINGS.items() if like_a_lane else ():
            await connection.execute(f"SET LOCAL {name} = '{value}'")
        await connection.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        parameters = len((await connection.prepare(statement)).get_parameters())
        await connection.execute(f"PREPARE looked_at AS {statement}")
        nulls = f" ({', '.join(['NULL'] * parameters)})" if parameters else ""
        rows = await connection.fetch(f"EXPLAIN (FORMAT JSON) EXECUTE looked_at{nulls}")
        await connection.execute("DEALLOCATE looked_at")
    return msgspec.json.decode(rows[0][0])[0]["Plan"]


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


def scanned(plan: dict[str, Any]) -> list[str]:
    """Return the tables that a plan reads from end to end."""
    return [node["Relation Name"] for node in nodes(plan) if node["Node Type"].endswith("Seq Scan")]
