"""A Valkey for one test, which may stop it, let it go on, kill it, and start it again."""

import os
import shutil
import signal
from typing import Self

from fundledger.app.valkey import EmbeddedValkey
from tests.support.running import short_folder


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
