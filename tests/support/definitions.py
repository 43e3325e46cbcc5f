"""Renew the definitions of guards that a release carries: `make definitions`."""

import asyncio
import shutil
from pathlib import Path

import asyncpg
import msgspec

from fundledger.app.host.postgres.server import EmbeddedPostgres
from fundledger.fund.store import migrate as fund
from fundledger.ledger.store.accounts import Layout
from fundledger.ledger.store.migrate import migrate
from fundledger.reconciliation.definitions import FUND, LEDGER, Manifest, print_manifest
from tests.support.database import Databases
from tests.support.running import short_folder

FOLDER = Path(__file__).parents[2] / "fundledger" / "reconciliation" / "expected"


def text_of(manifest: Manifest) -> str:
    """Return a manifest as text with one object in each line, so that two changes of it can be merged."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=1).decode() + "\n"


async def printed(postgres: Databases) -> dict[str, Manifest]:
    """Return the manifests of newly migrated databases."""
    manifests = {}
    for name, schemas in (("ledger", LEDGER), ("fund", FUND)):
        dsn = await postgres.empty()
        connection = await asyncpg.connect(dsn)
        try:
            await (migrate(connection, Layout(1, 1)) if name == "ledger" else fund.migrate(connection))
            manifests[name] = await print_manifest(connection, schemas)
        finally:
            await connection.close()
            await postgres.drop(dsn)
    return manifests


async def renew() -> None:
    folder = short_folder()
    server = EmbeddedPostgres(folder, memory_mb=256)
    await server.start()
    try:
        for name, manifest in (await printed(Databases(server, folder / "postgres.log"))).items():
            (FOLDER / f"{name}.json").write_text(text_of(manifest))
    finally:
        await server.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    asyncio.run(renew())
