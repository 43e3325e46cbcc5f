"""The Postgres of a mutation run, in a process of its own: it serves until its standard input ends.

It prints one line: the DSN of the database `postgres`.
"""

import asyncio
import shutil
import sys

from tests.conftest import Hasty
from tests.support.running import short_folder


async def _serve() -> None:
    folder = short_folder()
    server = Hasty(folder, memory_mb=256)
    try:
        await server.start()
        print(server._dsn("postgres"), flush=True)
        await asyncio.to_thread(sys.stdin.read)
    finally:
        await server.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    asyncio.run(_serve())
