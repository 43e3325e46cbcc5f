"""Copies of a data directory: no command on a copy reaches the database of the original."""

import json
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.client import Client
from tests.support.running import RunningService, run


@pytest.fixture(scope="module")
async def original() -> AsyncIterator[RunningService]:
    """Start both services, with an account; prove their books at the end."""
    service = RunningService(workers=1, fund=True)
    try:
        await service.start()
        async with Client(service.base_url, service.token) as client:
            service.merchant = await client.merchant(10)
        yield service
        report = await service.verify()
        assert report["ok"], report
    finally:
        await service.remove()


def copy_of(original: RunningService, to: Path) -> Path:
    """Copy all files, with sockets and stored addresses, as `cp -a` does."""
    data = to / "data"
    subprocess.run(["cp", "-a", str(original.data_dir), str(data)], check=False, capture_output=True)
    assert (data / "account-dsn").read_bytes() == (original.data_dir / "account-dsn").read_bytes()
    return data


@pytest.fixture
async def copy(original: RunningService) -> AsyncIterator[RunningService]:
    """Return a copy that was made while the original was running. Postgres recovers the copy as after a crash."""
    copy = RunningService(workers=1, fund=True)
    copy_of(original, copy.folder)
    try:
        yield copy
    finally:
        await copy.remove()


async def slots_of(original: RunningService) -> str:
    done = await run("hot", "list", "--json", env=original.environment, cwd=original.folder)
    return str(json.loads(done.stdout)["accounts"])


@pytest.mark.parametrize(
    "command",
    [
        ("verify",),
        ("migrate",),
        ("doctor",),
        ("hot", "list"),
        ("hot", "split", "{merchant}", "--slots", "5"),
        ("hot", "merge", "{merchant}"),
        ("jobs", "list"),
        ("jobs", "run", "hold_expiry", "--once"),
    ],
    ids=lambda command: "-".join(command[:2]),
)
async def test_a_command_on_a_copy_uses_the_copys_database(
    original: RunningService, copy: RunningService, command: tuple[str, ...]
) -> None:
    before = await slots_of(original)
    arguments = [part.format(merchant=original.merchant) for part in command]
    done = await run(*arguments, env=copy.environment, cwd=copy.folder)
    assert f"database: {copy.data_dir}/postgres (not running: started for this command)" in done.stderr, done
    assert str(original.data_dir) not in done.stderr
    assert done.returncode == 0 or command[0] in ("doctor", "jobs"), done
    assert await slots_of(original) == before
    if command[:2] == ("hot", "split"):
        assert "'slots': 5" in await slots_of(copy)


@pytest.mark.parametrize("command", ["verify", "migrate"])
async def test_a_command_beside_its_own_service_uses_that_ones_database(original: RunningService, command: str) -> None:
    done = await run(command, env=original.environment, cwd=original.folder)
    assert (done.returncode, done.stderr) == (0, f"fundledger: database: {original.data_dir}/postgres (running)\n")


async def test_a_copy_whose_folder_of_sockets_leads_to_the_original_is_refused(
    original: RunningService, copy: RunningService
) -> None:
    shutil.rmtree(copy.data_dir / "pg")
    (copy.data_dir / "pg").symlink_to(original.data_dir / "pg")
    done = await run("verify", env=copy.environment, cwd=copy.folder)
    assert done.returncode != 0
    assert "is a link" in done.stderr


async def test_a_server_that_is_not_its_own_gets_no_password(copy: RunningService) -> None:
    folder = copy.data_dir / "pg"
    path = folder / ".s.PGSQL.5432"
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.setblocking(False)
        done = await run("verify", env=copy.environment, cwd=copy.folder)
        taken, _ = listener.accept()
        with taken:
            assert taken.recv(1) == b"", "nothing was sent"
    assert done.returncode != 0
    assert f"process {os.getpid()} listens in {folder}, but it is not the Postgres of" in done.stderr


async def test_a_directory_without_a_database_of_its_own_uses_none(original: RunningService, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for name in ("account-dsn", "fund-dsn", "postgres-password"):
        shutil.copy(original.data_dir / name, data / name)
    done = await run("verify", env={"FUNDLEDGER_DATA_DIR": str(data)}, cwd=tmp_path)
    assert done.returncode == 2
    assert "there is no ledger in" in done.stderr
