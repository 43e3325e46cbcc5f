"""A Valkey for one test, which may stop it, let it go on, kill it, and start it again."""

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

from fundledger.app.valkey import EmbeddedValkey
from tests.support.running import free_port, short_folder
from tests.support.waiting import eventually


class OwnValkey:
    """`url` stays the same whatever becomes of the server."""

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
        """SIGSTOP: connections stay open, and nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT: what was asked meanwhile is answered now."""
        os.kill(self.pid, signal.SIGCONT)

    async def kill(self) -> None:
        """SIGKILL: connections are reset, new ones refused, and what was counted is gone."""
        os.kill(self.pid, signal.SIGKILL)
        await self.server.wait()

    async def restart(self) -> None:
        """Running again at the same place, empty."""
        await self.server.start()


@asynccontextmanager
async def a_redis(password: str = "") -> AsyncIterator[str]:
    """The URL of Debian's Redis on a TCP port of this machine: a server that is somebody else's."""
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
