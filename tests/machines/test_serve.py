"""`serve` on unusual machines: paths, umasks, signals, closed terminals, and state that its child processes inherit."""

import asyncio
import os
import signal
import stat
import subprocess
from pathlib import Path

import pytest

from tests.support.client import Client
from tests.support.running import COMMAND, RunningService, run
from tests.support.waiting import eventually

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="reads the environment of processes that hide their memory")
SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "aws-secret-1",
    "DATABASE_URL": "postgresql://u:secret-2@h/d",
    "PGPASSWORD": "secret-3",
    "VAULT_TOKEN": "secret-4",
    "FUNDLEDGER_TOKEN_OF_SOMETHING": "",
}


def children_of(pid: int) -> list[int]:
    """Return all descendants of a process, at this moment."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*"):
        for child in (task / "children").read_text().split():
            found += [int(child), *children_of(int(child))]
    return found


@pytest.mark.parametrize("umask", [0o000, 0o077])
async def test_what_serve_makes_is_private_and_its_children_inherit_no_secret(umask: int) -> None:
    secrets = {name: value for name, value in SECRETS.items() if value}
    service = RunningService(workers=1, fund=True, env=secrets)
    before = os.umask(umask)
    try:
        await service.start()
        os.umask(before)
        assert service.process is not None
        wide = [
            (str(path), oct(path.lstat().st_mode))
            for path in service.data_dir.rglob("*")
            if stat.S_ISREG(path.lstat().st_mode) and path.lstat().st_mode & 0o077
        ]
        assert wide == []
        pids = children_of(service.process.pid)
        assert {*service.worker_pids(), *service.fund_pids(), *service.jobs_pids(), *service.simulator_pids()} < {*pids}
        assert {service.postgres_pid(), service.valkey_pid()} < {*pids}
        for pid in pids:
            limits = Path(f"/proc/{pid}/limits").read_text()
            assert "Max core file size        0                    0" in limits, limits
            if os.geteuid() == 0:
                shown = Path(f"/proc/{pid}/environ").read_bytes().decode()
                assert "PATH=" in shown or "postgres:" in Path(f"/proc/{pid}/cmdline").read_text()
                assert [name for name in secrets if name in shown] == []
                assert "DSN" not in shown
        holding = [service.process.pid, *service.worker_pids(), *service.fund_pids(), *service.jobs_pids()]
        for pid in holding:
            # These files belong to root, whichever user runs the process, if the process forbids reads of its memory.
            assert Path(f"/proc/{pid}/environ").stat().st_uid == 0
        assert (await service.verify())["ok"]
        assert await service.stop() == 0
    finally:
        os.umask(before)
        await service.remove()


async def test_a_path_that_is_long_and_odd_serves(tmp_path: Path) -> None:
    service = RunningService(workers=1)
    service.data_dir = service.folder / "a,b c=%41'#é" / ("long" * 20) / "data"
    service.environment["FUNDLEDGER_DATA_DIR"] = str(service.data_dir)
    try:
        await service.start()
        async with Client(service.base_url, service.token) as client:
            await client.bank()
        assert (await service.verify())["ok"]
        # Folders of other users are not readable.
        folders = [path for path in Path("/tmp").glob("fundledger-*") if os.access(path, os.X_OK)]
        sockets = [path for path in folders if (path / "metrics.sock").exists()]
        assert sockets
        assert all(stat.S_IMODE(path.lstat().st_mode) == 0o700 for path in sockets)
        assert await service.stop() == 0
    finally:
        await service.remove()


@pytest.mark.parametrize("text", ["a\nb", "x" * 801])
async def test_a_path_that_cannot_be_used_is_refused_immediately(tmp_path: Path, text: str) -> None:
    done = await run("serve", env={"FUNDLEDGER_DATA_DIR": str(tmp_path / text)}, cwd=tmp_path, within_s=20)
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (2, 1), done.stderr
    assert "FUNDLEDGER_DATA_DIR" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("signals", [[signal.SIGHUP], [signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGHUP]])
async def test_a_closed_terminal_drains_as_sigterm_does(signals: list[signal.Signals]) -> None:
    async with RunningService(workers=1, fund=True) as service:
        async with Client(service.base_url, service.token) as client:
            await client.bank()
        assert service.process is not None
        pids = children_of(service.process.pid)
        for number in signals:
            service.process.send_signal(number)
        assert await service.ended() == 0
        assert "stopping; accepted requests are finished first" in service.log.read_text()
        assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []


async def test_a_signal_during_the_start_leaves_nothing_behind() -> None:
    service = RunningService(workers=1)
    try:
        with service.log.open("ab") as log:
            service.process = subprocess.Popen(
                [COMMAND, "serve"], env=service.environment, cwd=service.folder, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        await eventually(service.postgres_pid, "Postgres is started")
        pids = children_of(service.process.pid)
        assert pids
        service.process.send_signal(signal.SIGHUP)
        assert await service.ended() == 0, service.log_tail()
        assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []
    finally:
        await service.remove()


async def test_what_nohup_ignores_stays_ignored() -> None:
    service = RunningService(workers=1)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        await service.start()
        signal.signal(signal.SIGHUP, before)
        assert service.process is not None
        service.process.send_signal(signal.SIGHUP)
        async with Client(service.base_url, service.token) as client:
            await client.bank()
        assert service.is_running()
        assert await service.stop() == 0
    finally:
        signal.signal(signal.SIGHUP, before)
        await service.remove()


@pytest.mark.parametrize("where", ["a pipe that ended", "a full disk", "nothing"])
async def test_output_that_cannot_be_written_ends_nothing(where: str) -> None:
    service = RunningService(workers=1)
    environment = {**service.environment, "FUNDLEDGER_LOG_SAMPLE": "1"}
    try:
        if where == "nothing":
            command = ["sh", "-c", f'exec "{COMMAND}" serve <&- >&- 2>&-']
            service.process = subprocess.Popen(command, env=environment, cwd=service.folder, start_new_session=True)
        elif where == "a full disk":
            with Path("/dev/full").open("wb") as full:
                service.process = subprocess.Popen(
                    [COMMAND, "serve"], env=environment, cwd=service.folder, stdin=subprocess.DEVNULL,
                    stdout=full, stderr=full, start_new_session=True,
                )  # fmt: skip
        else:
            reader, writer = os.pipe()
            service.process = subprocess.Popen(
                [COMMAND, "serve"], env=environment, cwd=service.folder, stdin=subprocess.DEVNULL,
                stdout=writer, stderr=writer, start_new_session=True,
            )  # fmt: skip
            os.close(writer)
            os.close(reader)

        async def serves() -> bool:
            return (await http_ready(service.port)) if service.is_running() else False

        await eventually(serves, "it serves", 90)
        async with Client(service.base_url, service.token) as client:
            for _ in range(20):
                await client.bank()
        pids = children_of(service.process.pid)
        assert (await service.verify())["ok"]
        assert await service.stop() == 0
        assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []
        lock = (service.data_dir / "serve.lock").read_text()
        assert lock.startswith("fundledger serve, process")
        assert len(lock) < 100, "nothing else was written into it"
    finally:
        await service.remove()


async def http_ready(port: int) -> bool:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.write(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    return answer.startswith(b"HTTP/1.1 200")
