"""A Valkey for one test, which may pause it, resume it, kill it, and start it again."""

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from fundledger.app.host.valkey import EmbeddedValkey
from tests.support.running import free_port, short_folder
from tests.support.waiting import eventually


class OwnValkey:
    """A Valkey whose `url` stays the same over restarts."""

    def __init__(self) -> None:
        self.folder = short_folder()
        self.server = EmbeddedValkey(self.folder)

    async def __aenter__(self) -> Self:
        await self.server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.server.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def pid(self) -> int:
        assert self.server._process is not None
        return self.server._process.pid

    def pause(self) -> None:
        """Send SIGSTOP: connections stay open, and no command is answered."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Send SIGCONT: commands sent in the meantime are answered now."""
        os.kill(self.pid, signal.SIGCONT)

    async def kill(self) -> None:
        """Send SIGKILL: connections are reset, new ones refused, and the counts are lost."""
        os.kill(self.pid, signal.SIGKILL)
        await self.server.wait()

    async def restart(self) -> None:
        """Start again at the same address, empty."""
        await self.server.start()


@asynccontextmanager
async def a_redis(password: str = "") -> AsyncIterator[str]:
    """Start the installed Redis on a TCP port of this machine, as an external store. Return its URL."""
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("redis-server is missing: apt-get install redis-server")
    port = free_port()
    options = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--maxmemory-policy", "noeviction"]
    process = await asyncio.create_subprocess_exec(
        binary,
        *options,
        *(["--requirepass", password] if password else []),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    url = f"redis://{f':{password}@' if password else ''}127.0.0.1:{port}/2"

    async def answers() -> bool:
        async with Redis.from_url(url) as client:
            try:
                return bool(await client.ping())
            except RedisError:
                return False

    try:
        await eventually(answers, "Redis answers")
        yield url
    finally:
        process.kill()
        await process.wait()
