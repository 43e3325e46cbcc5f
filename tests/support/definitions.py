"""The definitions of guards that a release carries, printed anew: `make definitions`."""

import asyncio
import shutil
from pathlib import Path

import asyncpg
import msgspec

from fundledger.app.postgres import EmbeddedPostgres
from fundledger.fund import migrate as fund
from fundledger.ledger.accounts import Layout
from fundledger.ledger.migrate import migrate
from fundledger.reconciliation.definitions import FUND, LEDGER, Manifest, print_manifest
from tests.support.database import Databases
from tests.support.running import short_folder

FOLDER = Path(__file__).parents[2] / "fundledger" / "reconciliation" / "expected"


def text_of(manifest: Manifest) -> str:
    """An object a line, so that two changes of it are merged."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=1).decode() + "\n"


async def printed(postgres: Databases) -> dict[str, Manifest]:
    """The manifests of databases that were only migrated."""
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
