"""Starts of Postgres: if it cannot start, the reason is reported without retries. If it is not ready, `serve` waits."""

import asyncio
import os
import shutil
import signal
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import asyncpg
import pytest

from fundledger.app.commands import doctor
from fundledger.app.commands.doctor import run_doctor
from fundledger.app.host.postgres.server import EmbeddedPostgres, PostgresFault
from fundledger.app.host.postgres.start_log import last_fatal
from fundledger.settings import Settings
from tests.support.running import short_folder
from tests.support.waiting import eventually


class Counted(EmbeddedPostgres):
    """A Postgres that does not wait for the disk, and counts its launches."""

    launches = 0

    def _options(self, folder: Path) -> dict[str, str]:
        return {**super()._options(folder), "fsync": "off"}

    async def _launch(self) -> None:
        self.launches += 1
        await super()._launch()


@pytest.fixture(scope="module")
async def made() -> AsyncIterator[Path]:
    """Return a data directory with a stopped server."""
    folder = short_folder() / "data"
    folder.mkdir()
    folder.chmod(0o711)
    server = Counted(folder, memory_mb=128)
    await server.start()
    await server.stop()
    yield folder
    shutil.rmtree(folder.parent, ignore_errors=True)


@pytest.fixture
async def server(made: Path) -> AsyncIterator[Counted]:
    """Return a server on a copy of the data directory."""
    folder = short_folder() / "data"
    assert await asyncio.to_thread(os.system, f"cp -a {made} {folder}") == 0
    server = Counted(folder, memory_mb=128)
    yield server
    await server.stop()
    shutil.rmtree(folder.parent, ignore_errors=True)


def of_another_user(server: Counted) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    os.chown(server._home / "global" / "pg_control", 0, 0)


def unreadable(server: Counted) -> None:
    (server._home / "global" / "pg_control").chmod(0)


def open_to_all(server: Counted) -> None:
    server._home.chmod(0o777)


def of_an_older_version(server: Counted) -> None:
    (server._home / "PG_VERSION").write_text("17\n")


def without_its_control_file(server: Counted) -> None:
    (server._home / "global" / "pg_control").unlink()


def without_a_checkpoint(server: Counted) -> None:
    for path in (server._home / "pg_wal").glob("0*"):
        path.unlink()


def badly_configured(server: Counted) -> None:
    with (server._home / "postgresql.auto.conf").open("a") as file:
        file.write("max_connectons = 3\n")


def larger_than_the_machine(server: Counted) -> None:
    server._memory_mb = 8_000_000


def with_a_socket_that_is_taken(server: Counted) -> None:
    (server.socket_folder / ".s.PGSQL.5432").mkdir()
    server._stop_left_over = lambda: asyncio.sleep(0)


def without_its_password(server: Counted) -> None:
    server._password_file.unlink()


def with_another_password(server: Counted) -> None:
    server._password_file.write_text("another\n")


@pytest.mark.parametrize(
    ("spoil", "reason", "what_to_do", "launches"),
    [
        (of_another_user, "pg_control belongs to root, but Postgres runs as", "chown -R", 0),
        (unreadable, "Permission denied", "the files of the data directory", 1),
        (open_to_all, "invalid permissions", "chmod 0700", 1),
        (of_an_older_version, "incompatible with server", "made by Postgres 17", 1),
        (without_its_control_file, "pg_control", "from a backup", 1),
        (without_a_checkpoint, "checkpoint record", "from a backup", 1),
        (badly_configured, "contains errors", "correct", 1),
        (larger_than_the_machine, "shared memory", "FUNDLEDGER_POSTGRES_MEMORY_MB", 1),
        (with_a_socket_that_is_taken, "socket", "another process", 1),
        (without_its_password, "postgres-password is missing", "restore it", 0),
        (with_another_password, "is not the password of", "restore the one of the same backup", 1),
    ],
)
async def test_a_permanent_failure_is_one_line_after_one_try(
    server: Counted, spoil: Callable[[Counted], None], reason: str, what_to_do: str, launches: int
) -> None:
    spoil(server)
    with pytest.raises(PostgresFault) as fault:
        await server.start()
    said = str(fault.value)
    assert reason in said and what_to_do in said, said
    assert len(said.splitlines()) == 1
    assert server.launches == launches


async def test_processes_of_a_killed_server_are_waited_for(server: Counted) -> None:
    await server.start()
    connection = await asyncpg.connect(server._dsn("postgres"))
    backend = connection.get_server_pid()
    os.kill(backend, signal.SIGSTOP)
    server._process.kill()
    await server.wait()
    since = server.log.path.stat().st_size
    starting = asyncio.create_task(server.start())
    await eventually(lambda: "pre-existing shared memory" in last_fatal(server.log.path, since), "it fails once")
    os.kill(backend, signal.SIGCONT)
    await starting
    assert server.launches > 2
    connection.terminate()


def test_the_last_serious_line_since_a_start_is_the_reason(tmp_path: Path) -> None:
    log = tmp_path / "postgres.log"
    before = "2026-01-01 00:00:00.000 UTC [1]  FATAL:  of an earlier start\n"
    log.write_text(before)
    assert last_fatal(log, len(before)) == ""
    since = [
        "2026-01-01 00:00:01.000 UTC [2]  LOG:  starting PostgreSQL 18",
        "2026-01-01 00:00:01.000 UTC [2]  PANIC:  could not locate a valid checkpoint record at 0/1",
        "2026-01-01 00:00:01.100 UTC [3]  FATAL:  the database system is starting up",
        "2026-01-01 00:00:01.200 UTC [2]  LOG:  database system is shut down",
    ]
    log.write_text(before + "\n".join(since) + "\n")
    assert last_fatal(log, len(before)) == "PANIC: could not locate a valid checkpoint record at 0/1"
    assert last_fatal(log, 1 << 20) == "PANIC: could not locate a valid checkpoint record at 0/1"
    assert last_fatal(tmp_path / "none", 0) == ""


async def test_the_doctor_ends_and_names_the_step_that_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "LIMIT_S", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        dsn = f"postgresql://someone:secret@127.0.0.1:{silent.getsockname()[1]}/none"
        assert await run_doctor(Settings(data_dir=tmp_path, account_dsn=dsn, fund="off")) == 1
    said = capsys.readouterr().out
    assert "BAD  databases" in said
    assert "secret" not in said
