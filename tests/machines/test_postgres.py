"""The embedded Postgres on unusual machines: private folders, little space, and the contents of its log."""

import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from fundledger.app.host import log_file
from fundledger.app.host.disk_space import FIRST_START_MB
from fundledger.app.host.log_file import LogFile
from fundledger.app.host.postgres import shared_memory, system_user
from fundledger.app.host.postgres.server import EmbeddedPostgres
from fundledger.app.host.private_files import mend_modes
from tests.support.running import RunningService, run, short_folder

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs a user of its own for Postgres, or to mount")
SECRET = "whsec-7f3b51d2c0a94e6f"


class Quick(EmbeddedPostgres):
    """A Postgres that does not wait for the disk, and logs statements that take more than 0.2 s as slow."""

    def _options(self, folder: Path) -> dict[str, str]:
        return {**super()._options(folder), "fsync": "off", "log_min_duration_statement": "200ms"}


@pytest.fixture
def folder() -> Iterator[Path]:
    made = short_folder()
    yield made
    shutil.rmtree(made, ignore_errors=True)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@AS_ROOT
@pytest.mark.parametrize("name", ["data", "a,b 'c' %41", "long" * 25])
async def test_private_folders_above_the_data_directory_stay_private(folder: Path, name: str) -> None:
    private = folder / "private"
    data = private / name
    data.mkdir(parents=True)
    for path in (folder, private, data):
        path.chmod(0o700)
    server = Quick(data, memory_mb=128)
    for _ in range(2):
        await server.start()
        connection = await asyncpg.connect(server.dsn)
        assert await connection.fetchval("SELECT count(*) FROM pg_class") > 100
        await connection.close()
        await server.stop()
    assert [mode(path) for path in (folder, private, data)] == [0o700] * 3


@AS_ROOT
def test_binaries_in_a_private_folder_are_copied_to_where_their_user_reaches_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = EmbeddedPostgres(folder, memory_mb=128)
    home = server._bin.parent
    package, private = home.parent, folder / "private"
    shutil.copytree(package, private / package.name, symlinks=True)
    shutil.copytree(f"{package}.libs", private / f"{package.name}.libs", symlinks=True)
    private.chmod(0o700)
    private_home = private / package.name / home.name
    copies = Path(tempfile.mkdtemp(dir="/var/lib")) / "copies"
    copies.parent.chmod(0o755)
    monkeypatch.setattr(system_user, "COPIES", copies)
    # `serve` sets this umask.
    umask = os.umask(0o077)
    try:
        found = system_user.binaries_for(server._user, private_home)
        assert found.is_relative_to(copies)
        assert system_user.binaries_for(server._user, private_home) == found
        assert server._user is not None
        for program in ("postgres", "initdb"):
            done = subprocess.run(
                [found / program, "--version"], user=server._user.pw_uid, check=False, capture_output=True
            )
            assert done.returncode == 0, done.stderr
        assert mode(private) == 0o700
        (found / "postgres").chmod(0o777)
        with pytest.raises(PermissionError):
            system_user.binaries_for(server._user, private_home)
    finally:
        os.umask(umask)
        shutil.rmtree(copies.parent)


async def test_the_log_holds_no_bound_value_no_row_and_no_failed_statement(folder: Path) -> None:
    server = Quick(folder, memory_mb=128)
    await server.start()
    connection = await asyncpg.connect(server.dsn)
    long = "/* " + "x" * 5000 + " */"
    try:
        await connection.execute("CREATE TABLE t (id text PRIMARY KEY, secret text CHECK (length(secret) > 3))")
        assert await connection.fetchval("SELECT $1::text FROM (SELECT pg_sleep(0.3)) s", SECRET) == SECRET
        await connection.execute("INSERT INTO t VALUES ($1, $2)", SECRET, SECRET)
        before = (folder / "postgres.log").stat().st_size
        for _ in range(20):
            with pytest.raises(asyncpg.UniqueViolationError):
                await connection.execute(f"INSERT INTO t VALUES ($1, $2) {long}", SECRET, SECRET)
            with pytest.raises(asyncpg.CheckViolationError):
                await connection.execute(f"INSERT INTO t VALUES ($1, 'abc') {long}", SECRET)
            with pytest.raises(asyncpg.DivisionByZeroError):
                await connection.execute(f"DO $$ BEGIN PERFORM 1 / 0; {long} END $$")
    finally:
        await connection.close()
        await server.stop()
    text = (folder / "postgres.log").read_text()
    assert "duration:" in text, "the slow statement is there"
    assert SECRET not in text
    assert len(text) - before < 60 * 250 + 4000
    assert mode(folder / "postgres.log") == 0o600


@pytest.mark.parametrize("umask", [0o000, 0o027, 0o077])
def test_a_log_is_private_under_every_umask_and_a_wrong_mode_is_mended(tmp_path: Path, umask: int) -> None:
    log = LogFile(tmp_path / "postgres.log")
    before = os.umask(umask)
    try:
        log.open().close()
        assert mode(log.path) == 0o600
        log.path.chmod(0o644)
        log.open().close()
        assert mode(log.path) == 0o600
    finally:
        os.umask(before)


def test_a_log_stays_short_while_it_is_written_to_and_at_the_next_start(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "valkey.log", 10_000)
    with log.open() as file:
        for number in range(100):
            file.write(b"%06d " % number * 100 + b"\n")
            file.flush()
            log.bound()
            assert log.path.stat().st_size <= 10_000 + 701
    assert "000099" in log.path.read_text() + (tmp_path / "valkey.log.1").read_text()
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 21_000
    assert all(mode(path) == 0o600 for path in tmp_path.iterdir())
    log.path.write_bytes(b"x" * 50_000)
    log.open().close()
    assert log.path.stat().st_size == 0
    assert not LogFile(tmp_path / "none").bound()


def test_a_log_that_is_a_link_is_not_written(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "postgres.log").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError):
        LogFile(tmp_path / "postgres.log").open()
    assert not LogFile(tmp_path / "postgres.log", 1).bound()
    assert (tmp_path / "victim").read_text() == "precious"


def test_the_modes_of_files_that_were_made_wider_are_mended(tmp_path: Path) -> None:
    for name in ("postgres.log", "postgres.log.1", "valkey.log", "limits.toml", "serve.lock", "simulator/simulator.db"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(0o644)
    (tmp_path / "elsewhere").write_text("")
    (tmp_path / "elsewhere").chmod(0o644)
    (tmp_path / "valkey.log.1").symlink_to(tmp_path / "elsewhere")
    mend_modes(tmp_path)
    found = {path.name: mode(path) for path in tmp_path.rglob("*") if path.is_file() and not path.is_symlink()}
    assert found.pop("elsewhere") == 0o644
    assert set(found.values()) == {0o600}
    assert mode(tmp_path / "simulator") == 0o700


@AS_ROOT
@pytest.mark.parametrize("size", ["24m", "120m"])
async def test_too_little_room_at_the_first_start_is_one_line_and_writes_nothing(folder: Path, size: str) -> None:
    """The data directory of the test is on a small file system in memory."""
    small = folder / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=711", "none", small], check=False)
    if mounted.returncode:
        pytest.skip("nothing can be mounted here")
    try:
        service = RunningService(workers=1, data_dir=small / "data")
        done = await run("serve", env=service.environment, cwd=folder)
        lines = done.stderr.strip().splitlines()
        assert (done.returncode, len(lines)) == (2, 1), done.stderr
        assert f"needs {FIRST_START_MB} MB" in lines[0]
        assert not (small / "data" / "postgres").exists()
        doctor = await run("doctor", env=service.environment, cwd=folder)
        assert "BAD  free disk space" in doctor.stdout
        await service.remove()
    finally:
        subprocess.run(["umount", "-l", small], check=True)


@AS_ROOT
async def test_without_shared_memory_a_directory_that_served_before_serves(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`/dev/shm` is full, read-only or missing. It is checked at each start, not only at the first one."""
    server = Quick(folder, memory_mb=128)
    await server.start()
    await server.stop()
    monkeypatch.setattr(shared_memory, "SHARED", folder / "none")
    monkeypatch.setattr(shared_memory.shared_memory_type, "__defaults__", (folder / "none",))
    await server.start()
    connection = await asyncpg.connect(server.dsn)
    assert await connection.fetchval("SHOW dynamic_shared_memory_type") == "mmap"
    await connection.close()
    await server.stop()


def test_shared_memory_has_to_be_there_for_every_user(tmp_path: Path) -> None:
    assert shared_memory.room_mb(tmp_path / "none") == 0
    tmp_path.chmod(0o755)
    assert shared_memory.room_mb(tmp_path) == 0
    tmp_path.chmod(0o1777)
    assert shared_memory.room_mb(tmp_path) > 0
    assert shared_memory.shared_memory_type(tmp_path / "none") == "mmap"


async def test_the_room_that_is_asked_for_is_enough(folder: Path) -> None:
    server = Quick(folder, memory_mb=128)
    await server.start()
    await server.stop()
    used = sum(path.lstat().st_blocks * 512 for path in folder.rglob("*")) >> 20
    assert used < FIRST_START_MB
    assert log_file.BYTES_MAX >> 20 < FIRST_START_MB
