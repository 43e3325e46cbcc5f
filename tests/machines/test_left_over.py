"""Process ids in left-over files: a start stops a process only if it is the Postgres of this data directory."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from fundledger.app.host.postgres.left_over import (
    NO_PROCESS,
    forget_stale_id,
    is_postmaster,
    postmasters,
    stop_left_over,
)
from fundledger.app.host.postgres.server import EmbeddedPostgres
from tests.support.running import short_folder


class Quick(EmbeddedPostgres):
    """A Postgres that does not wait for the disk."""

    def _options(self, folder: Path) -> dict[str, str]:
        return {**super()._options(folder), "fsync": "off"}


@pytest.fixture
def data_dir() -> Iterator[Path]:
    folder = short_folder()
    (folder / "data").mkdir(mode=0o711)
    (folder / "data").chmod(0o711)
    yield folder / "data"
    shutil.rmtree(folder, ignore_errors=True)


def innocent(user: int | None) -> "subprocess.Popen[bytes]":
    """Start a process that is no Postgres, as the user of Postgres. SIGINT and SIGTERM end it."""
    return subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, user=user, start_new_session=True)


async def test_a_stale_id_that_names_another_process_harms_neither_it_nor_the_start(data_dir: Path) -> None:
    server = Quick(data_dir, memory_mb=128)
    await server.start()
    await server.stop()
    process = innocent(None if server._user is None else server._user.pw_uid)
    try:
        home = data_dir / "postgres"
        lines = [str(process.pid), str(home), "1700000000", "5432", str(data_dir / "pg"), "", "  7274741    999999"]
        (home / "postmaster.pid").write_text("\n".join(lines) + "\n")
        (data_dir / "pg" / ".s.PGSQL.5432.lock").write_text("\n".join(lines) + "\n")
        for path in (home / "postmaster.pid", data_dir / "pg" / ".s.PGSQL.5432.lock"):
            if server._user is not None:
                os.chown(path, server._user.pw_uid, server._user.pw_gid)
            path.chmod(0o600)
        await server.start()
        assert process.poll() is None
        await server.stop()
        assert process.poll() is None
    finally:
        process.kill()
        process.communicate()


async def test_a_postgres_that_was_left_behind_is_stopped_whatever_its_file_says(data_dir: Path) -> None:
    server = Quick(data_dir, memory_mb=128)
    await server.start()
    home = data_dir / "postgres"
    assert server._process is not None
    pid = server._process.pid
    assert postmasters(home) == [pid]
    connection = await asyncpg.connect(server.dsn)
    backend = await connection.fetchval("SELECT pg_backend_pid()")
    await connection.close()
    assert not is_postmaster(backend, home)
    assert not is_postmaster(pid, data_dir)
    assert not is_postmaster(os.getpid(), home)
    assert not forget_stale_id(home)
    assert await stop_left_over(home) is None
    assert await server.wait() == 0
    assert postmasters(home) == []
    await server.start()
    await server.stop()


async def test_a_postgres_of_another_data_directory_is_left_alone(data_dir: Path) -> None:
    one, other = data_dir / "one", data_dir / "other"
    for folder in (one, other):
        folder.mkdir()
        folder.chmod(0o711)
    running, stopped = Quick(one, memory_mb=128), Quick(other, memory_mb=128)
    await running.start()
    try:
        await stopped.start()
        await stopped.stop()
        pid_file = (one / "postgres" / "postmaster.pid").read_text()
        (other / "postgres" / "postmaster.pid").write_text(pid_file)
        if stopped._user is not None:
            os.chown(other / "postgres" / "postmaster.pid", stopped._user.pw_uid, -1)
        (other / "postgres" / "postmaster.pid").chmod(0o600)
        await stopped.start()
        await stopped.stop()
        connection = await asyncpg.connect(running.dsn)
        await connection.close()
    finally:
        await running.stop()


def test_a_stale_id_is_replaced_and_the_rest_of_the_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "postmaster.pid"
    path.write_text(f"{os.getpid()}\n{tmp_path}\n17\n5432\n/run\n\n  7274741    12\n")
    assert forget_stale_id(tmp_path)
    assert path.read_text() == f"{NO_PROCESS}\n{tmp_path}\n17\n5432\n/run\n\n  7274741    12\n"
    assert not forget_stale_id(tmp_path)
    with pytest.raises(ProcessLookupError):
        os.kill(NO_PROCESS, signal.SIG_DFL)


@pytest.mark.parametrize("text", ["", "\n", "not a number\n", "-1\n", "99999999999999999999\n"])
async def test_a_damaged_file_stops_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "postmaster.pid").write_text(text)
    forget_stale_id(tmp_path)
    assert await stop_left_over(tmp_path) is None


def test_the_file_is_not_followed_through_a_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text(f"{os.getpid()}\n")
    (tmp_path / "postmaster.pid").symlink_to(victim)
    assert not forget_stale_id(tmp_path)
    assert victim.read_text() == f"{os.getpid()}\n"


async def test_what_is_stopped_has_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a Postgres ignores both signals, the start ends with a message that names the process."""
    from fundledger.app.host.postgres import left_over

    monkeypatch.setattr(left_over, "STOP_S", 0.1)
    monkeypatch.setattr(left_over, "QUIT_S", 0.1)
    fake = tmp_path / "postgres"
    shutil.copy(sys.executable, fake)
    code = "import signal; [signal.signal(n, signal.SIG_IGN) for n in (2, 3)]; print(1, flush=True); input()"
    process = await asyncio.create_subprocess_exec(
        fake, "-c", code, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONHOME": sys.base_prefix},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        await process.stdout.readline()
        assert await stop_left_over(tmp_path) == process.pid
    finally:
        process.kill()
        await process.wait()
