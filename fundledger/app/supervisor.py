"""`fundledger serve`: the database, the workers, and what happens when one of them dies."""

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import asyncpg
import msgspec

from fundledger.app.limits import read_policies
from fundledger.app.postgres import EmbeddedPostgres, PostgresFault, run_dir
from fundledger.app.scrape import Scraper
from fundledger.app.server import WorkerOrder
from fundledger.app.settings import PREFIX, BadSetting, Settings
from fundledger.app.sockets import worker_socket
from fundledger.app.valkey import EmbeddedValkey, ValkeyFault
from fundledger.database.migrations import SchemaFault
from fundledger.ledger.accounts import Layout
from fundledger.ledger.migrate import migrate
from fundledger.security.keys import FileKeys, KeyFault
from fundledger.security.tokens import dev_token

_log = logging.getLogger(__name__)
START_S = 60.0
PORT_WAIT_S = 10.0


class CannotServe(Exception):
    """Why not, in one line."""


class Supervisor:
    """The parent of everything that runs. `run` returns when it was told to stop and all has been drained."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._postgres: EmbeddedPostgres | None = None
        self._dsn = settings.account_dsn
        self._valkey: EmbeddedValkey | None = None
        self._valkey_kept: asyncio.Task[None] | None = None
        self._redis_url = settings.redis_url
        self._run_dir = run_dir(settings.data_dir)
        self._scraper = Scraper(self._run_dir, settings.workers)
        self._workers: dict[int, asyncio.subprocess.Process] = {}
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Raises CannotServe, BadSetting."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        held = lock(self._settings.data_dir)
        try:
            await _wait_for_port(self._settings.host, self._settings.port)
            await self._prepare()
            await self._scraper.open()
            keepers = await self._start_workers()
            if not self._stopping.is_set():
                _banner(self._settings, self._valkey)
            if self._postgres is not None:
                keepers.append(loop.create_task(self._keep_postgres(self._postgres)))
            await self._first_of(keepers)
            await self._stop(keepers)
        except (KeyFault, PostgresFault, SchemaFault) as fault:
            raise CannotServe(str(fault)) from None
        finally:
            if self._valkey is not None and self._valkey_kept is not None:
                self._valkey_kept.cancel()
                await asyncio.gather(self._valkey_kept, return_exceptions=True)
                await self._valkey.stop()
            await self._scraper.close()
            if self._postgres is not None:
                await self._postgres.stop()
            held.close()

    async def _prepare(self) -> None:
        FileKeys(self._settings.data_dir / "keys")
        dev_token(self._settings.data_dir / "dev-token")
        if self._settings.ratelimit != "off":
            read_policies(self._settings)
        self._run_dir.mkdir(mode=0o700, exist_ok=True)
        if not self._redis_url:
            self._valkey = EmbeddedValkey(self._settings.data_dir)
            self._redis_url = self._valkey.url
            self._valkey_kept = asyncio.create_task(self._keep_valkey(self._valkey))
        if not self._dsn:
            self._postgres = EmbeddedPostgres(self._settings.data_dir, self._settings.postgres_memory_mb)
            await self._postgres.start()
            self._dsn = self._postgres.dsn
            _write_secret(self._settings.data_dir / "account-dsn", self._dsn + "\n")
        for left in self._run_dir.glob("worker-*.sock"):
            left.unlink()
        await migrate_database(self._dsn, self._settings)

    async def _start_workers(self) -> list[asyncio.Task[None]]:
        ready = [asyncio.Event() for _ in range(self._settings.workers)]
        keepers = [asyncio.create_task(self._keep_worker(i, ready[i])) for i in range(self._settings.workers)]
        started = asyncio.gather(*(event.wait() for event in ready))
        stopped = asyncio.create_task(self._stopping.wait())
        failed = asyncio.create_task(self._first_of(keepers))
        waiting: list[asyncio.Future[Any]] = [started, stopped, failed]
        await asyncio.wait(waiting, timeout=START_S, return_when=asyncio.FIRST_COMPLETED)
        if not started.done() and not stopped.done():
            raise CannotServe("the workers do not start: see the log above")
        for one in waiting:
            one.cancel()
        return keepers

    async def _first_of(self, keepers: list[asyncio.Task[None]]) -> None:
        """Until told to stop, or until a keeper gives up."""
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait([stopping, *keepers], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()

    async def _keep_worker(self, ordinal: int, ready: asyncio.Event) -> None:
        """Start a worker, and another when it dies; slower when it dies young."""
        loop = asyncio.get_running_loop()
        pause = 0.0
        while not self._stopping.is_set():
            started = loop.time()
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "fundledger.app.server",
                stdin=subprocess.PIPE,
                start_new_session=True,
            )
            self._workers[ordinal] = process
            assert process.stdin is not None
            order = WorkerOrder(
                ordinal, self._dsn, str(self._run_dir), self._settings.model_dump_json(), self._redis_url
            )
            process.stdin.write(msgspec.json.encode(order) + b"\n")
            watch = asyncio.create_task(_until_told(worker_socket(self._run_dir, ordinal), ready))
            code = await process.wait()
            watch.cancel()
            self._scraper.ended(ordinal)
            if self._stopping.is_set():
                return
            _log.error("a worker died and is started again", extra={"worker": ordinal, "code": code})
            pause = 0.0 if loop.time() - started > 5 else min(5.0, pause * 2 + 0.2)
            await self._pause(pause)

    async def _keep_postgres(self, postgres: EmbeddedPostgres) -> None:
        while True:
            code = await postgres.wait()
            if self._stopping.is_set():
                return
            _log.error("the embedded Postgres died and is started again", extra={"code": code})
            await postgres.start()

    async def _keep_valkey(self, valkey: EmbeddedValkey) -> None:
        """Start it, and again when it died. Nobody waits for it: without it workers limit by their own shares."""
        loop = asyncio.get_running_loop()
        pause = 0.0
        while not self._stopping.is_set():
            started = loop.time()
            try:
                await valkey.start()
                code = await valkey.wait()
                if self._stopping.is_set():
                    return
                _log.error("the embedded Valkey died and is started again", extra={"code": code})
            except ValkeyFault as fault:
                _log.error("%s; limits are each worker's own share until it starts", fault)
            except Exception:
                _log.exception("the embedded Valkey cannot be kept; limits are each worker's own share until it starts")
            pause = 0.0 if loop.time() - started > 5 else min(30.0, pause * 2 + 0.2)
            await self._pause(pause)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    async def _stop(self, keepers: list[asyncio.Task[None]]) -> None:
        print("fundledger: stopping; what was accepted is finished first", flush=True)
        self._stopping.set()
        for process in self._workers.values():
            if process.returncode is None:
                process.terminate()
        waits: list[Awaitable[Any]] = [process.wait() for process in self._workers.values()]
        try:
            async with asyncio.timeout(self._settings.drain_s + 10):
                await asyncio.gather(*waits)
        except TimeoutError:
            _log.error("a worker did not drain in time and is killed")
            for process in self._workers.values():
                if process.returncode is None:
                    process.kill()
        for keeper in keepers:
            keeper.cancel()
        broken = [r for r in await asyncio.gather(*keepers, return_exceptions=True) if isinstance(r, Exception)]
        if broken:
            raise CannotServe(str(broken[0]))


async def migrate_database(dsn: str, settings: Settings) -> list[str]:
    """Bring the schema up to date. Raises BadSetting when the ledger has another layout, CannotServe."""
    try:
        connection = await asyncpg.connect(dsn, timeout=10)
    except (OSError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
        raise CannotServe(f"the account database cannot be reached: {error or type(error).__name__}") from None
    try:
        layout, done = await migrate(connection, Layout(settings.shards or 1, settings.platform_slots or 8))
    finally:
        await connection.close()
    for name, asked, fixed in (
        ("SHARDS", settings.shards, layout.shards),
        ("PLATFORM_SLOTS", settings.platform_slots, layout.platform_slots),
    ):
        if asked is not None and asked != fixed:
            raise BadSetting(f"{PREFIX}{name}={asked}: this ledger was initialised with {fixed}, accepted is {fixed}")
    return done


async def _until_told(path: Path, ready: asyncio.Event) -> None:
    """A worker that answers on its socket serves."""
    while True:
        try:
            _, writer = await asyncio.open_unix_connection(str(path))
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            ready.set()
            return


def lock(data_dir: Path) -> Any:
    """Hold the data directory for as long as this process lives. Raises CannotServe."""
    try:
        data_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
        file = (data_dir / "serve.lock").open("a+")
    except OSError as error:
        raise CannotServe(
            f"{PREFIX}DATA_DIR={str(data_dir)!r}: {error.strerror}, accepted is a writable folder"
        ) from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip() or "another process"
        raise CannotServe(f"{data_dir} is in use by {holder}: stop it or choose another FUNDLEDGER_DATA_DIR") from None
    file.truncate(0)
    file.write(f"fundledger serve, process {os.getpid()}")
    file.flush()
    return file


async def _wait_for_port(host: str, port: int) -> None:
    """Workers share the port, so nothing but this check would notice another service on it. Raises CannotServe."""
    give_up_at = asyncio.get_running_loop().time() + PORT_WAIT_S
    while True:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                if asyncio.get_running_loop().time() > give_up_at:
                    message = f"{PREFIX}PORT={port}: {error.strerror}; stop what listens there or choose another port"
                    raise CannotServe(message) from None
            else:
                return
        await asyncio.sleep(0.2)


def _write_secret(path: Path, text: str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(text)


def _banner(settings: Settings, valkey: EmbeddedValkey | None) -> None:
    base = f"http://{settings.host}:{settings.port}"
    token = settings.data_dir / "dev-token"
    account = '{"id":"bank:demo","owner":"platform","type":"bank","currency":"CNY"}'
    headers = f'-H "Authorization: Bearer $(cat {token})" -H "Content-Type: application/json"'
    if valkey is None:
        limits = "FUNDLEDGER_REDIS_URL"
    else:
        limits = str(valkey.socket_path) if valkey.is_running() else f"no Valkey, see {valkey.log_file}"
    lines = (
        f"fundledger: ready, {settings.workers} workers",
        f"  account service  {base}    reference {base}/docs",
        f"  API token        {token}",
        f"  database         {'FUNDLEDGER_ACCOUNT_DSN' if settings.account_dsn else settings.data_dir / 'account-dsn'}",
        f"  limits           {limits}",
        f"  try              curl -s {base}/v1/accounts {headers} -d '{account}'",
        "  Ctrl-C drains and stops",
    )
    print("\n".join(lines), flush=True)
