"""A process for the tests of process groups; its configuration is the path of the unix socket that it listens on.

Arguments: `stubborn` ignores SIGTERM. `young` ends with status 3 before it serves. `silent` never serves.
"""

import asyncio
import signal
import sys


async def serve() -> None:
    loop = asyncio.get_running_loop()
    lifeline = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lifeline), sys.stdin)
    path = (await lifeline.readline()).decode().strip()
    if "young" in sys.argv:
        sys.exit(3)
    if "stubborn" in sys.argv:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "silent" not in sys.argv:
        await asyncio.start_unix_server(lambda _, writer: writer.close(), path)
    await lifeline.read()


if __name__ == "__main__":
    asyncio.run(serve())
