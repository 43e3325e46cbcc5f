"""The embedded Valkey: it starts, is restarted after a kill, and ends with its supervisor; no service depends on it."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from fundledger.app.host import valkey as app_valkey
from fundledger.app.host.supervisor import Supervisor
from fundledger.app.host.valkey import EmbeddedValkey, ValkeyFault
from fundledger.settings import Settings
from tests.support.client import Client
from tests.support.running import RunningService, free_port, run
from tests.support.valkey import OwnValkey
from tests.support.waiting import eventually


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# --- Valkey alone ---------------------------------------------------------------------------------------------------


async def test_it_listens_on_its_socket_only_and_keeps_nothing(valkey: str) -> None:
    async with Redis.from_url(valkey) as redis:
        await redis.flushall()
        asked = ("port", "save", "appendonly", "maxmemory", "maxmemory-policy", "unixsocketperm")
        said = {name: (await redis.config_get(name))[name] for name in asked}
    assert said == {
        "port": "0",
        "save": "",
        "appendonly": "no",
        "maxmemory": str(128 << 20),
        "maxmemory-policy": "noeviction",
        "unixsocketperm": "700",
    }


async def test_what_was_counted_is_gone_after_a_kill_and_it_starts_again_at_the_same_place() -> None:
    async with OwnValkey() as own:
        url, first = own.url, own.pid
        async with Redis.from_url(url) as redis:
            await redis.set("k", 1)
        await own.kill()
        await own.restart()
        assert own.pid != first
        async with Redis.from_url(own.url) as redis:
            assert (own.url, await redis.get("k")) == (url, None)


async def test_one_that_is_paused_answers_when_it_goes_on() -> None:
    impatient = {"socket_timeout": 0.1, "retry": Retry(NoBackoff(), 0)}
    async with OwnValkey() as own, Redis.from_url(own.url, **impatient) as redis:
        assert await redis.ping()
        own.pause()
        with pytest.raises(RedisTimeoutError):
            await redis.ping()
        own.resume()
        async with Redis.from_url(own.url) as other:
            assert await other.ping()


@pytest.mark.parametrize("is_paused", [False, True])
async def test_stop_leaves_no_process(is_paused: bool) -> None:
    own = OwnValkey()
    async with own:
        pid = own.pid
        if is_paused:
            own.pause()
    assert not alive(pid)
    assert not own.server.is_running()
    await own.server.stop()


async def test_a_long_path_and_an_odd_one_are_served_too(tmp_path: Path) -> None:
    for data_dir in (tmp_path / ("long" * 40), tmp_path / "50% of it? #1"):
        (data_dir / "run").mkdir(parents=True)
        server = EmbeddedValkey(data_dir)
        await server.start()
        try:
            async with Redis.from_url(server.url) as redis:
                assert await redis.ping()
        finally:
            await server.stop()
            server.socket_path.parent.rmdir()


CHILD = """
import asyncio, pathlib, sys
from fundledger.app.host.valkey import EmbeddedValkey

async def main():
    server = EmbeddedValkey(pathlib.Path(sys.argv[1]))
    await server.start()
    print(server._process.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.parametrize("is_paused", [False, True])
async def test_it_dies_with_its_parent(tmp_path: Path, is_paused: bool) -> None:
    with subprocess.Popen([sys.executable, "-c", CHILD, tmp_path], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert alive(pid)
        if is_paused:
            os.kill(pid, signal.SIGSTOP)
        parent.kill()
    await eventually(lambda: not alive(pid), "Valkey ends")


async def test_one_that_cannot_run_is_a_fault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    server = EmbeddedValkey(tmp_path)
    monkeypatch.setattr(app_valkey, "_binary", lambda: tmp_path / "gone")
    with pytest.raises(ValkeyFault, match="cannot be run"):
        await server.start()
    with pytest.raises(ValkeyFault, match="cannot be run"):
        await server.version()
    monkeypatch.setattr(app_valkey, "_binary", lambda: Path("/bin/false"))
    with pytest.raises(ValkeyFault, match=r"status 1: see .*valkey\.log"):
        await server.start()
    assert not server.is_running()


async def test_one_that_never_answers_is_a_fault_and_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    deaf = tmp_path / "deaf"
    deaf.write_text("#!/bin/sh\nexec sleep 60\n")
    deaf.chmod(0o755)
    monkeypatch.setattr(app_valkey, "_binary", lambda: deaf)
    monkeypatch.setattr(app_valkey, "START_S", 0.2)
    server = EmbeddedValkey(tmp_path)
    with pytest.raises(ValkeyFault, match="does not answer"):
        await server.start()
    assert not server.is_running()


# --- Valkey below the supervisor ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
async def own() -> AsyncIterator[RunningService]:
    async with RunningService(workers=2) as running:
        yield running
        assert (await running.verify())["ok"]


async def test_it_is_started_again_when_it_was_killed_and_payments_go_on(own: RunningService) -> None:
    first = own.valkey_pid()
    assert first is not None
    os.kill(first, signal.SIGKILL)
    async with Client(own.base_url, own.token) as client:
        a, b = await client.merchant(100), await client.merchant()
        assert (await client.pay(a, b, 1)).status == 201
        await eventually(lambda: own.valkey_pid() not in (None, first), "another Valkey")
        url = EmbeddedValkey(own.data_dir).url

        async def answers() -> bool:
            try:
                async with Redis.from_url(url) as redis:
                    return bool(await redis.ping())
            except (OSError, RedisError):
                return False

        await eventually(answers, "it answers at the same place")
        assert (await client.pay(a, b, 1)).status == 201
    assert "the embedded Valkey died and is restarted" in own.log.read_text()


async def test_the_banner_names_its_socket(own: RunningService) -> None:
    assert f"{own.data_dir}/run/valkey.sock" in own.log.read_text()


@pytest.mark.parametrize("fault", [None, RuntimeError("a bug"), PermissionError(13, "no")], ids=str)
async def test_one_that_does_not_start_is_tried_again_in_the_background(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path, fault: Exception | None
) -> None:
    server = EmbeddedValkey(tmp_path)
    tries = 0
    real = app_valkey._binary

    def second_time_lucky() -> Path:
        nonlocal tries
        tries += 1
        if tries == 1 and fault is not None:
            raise fault
        return tmp_path / "gone" if tries == 1 else real()

    monkeypatch.setattr(app_valkey, "_binary", second_time_lucky)
    supervisor = Supervisor(Settings(data_dir=tmp_path))
    kept = asyncio.create_task(supervisor._keep_valkey(server))
    try:
        await eventually(server.is_running, "it runs after all")
    finally:
        kept.cancel()
        await asyncio.gather(kept, return_exceptions=True)
        await server.stop()
    assert tries == 2
    assert "workers use local quotas" in caplog.text


async def test_another_redis_switches_the_embedded_one_off(valkey: str) -> None:
    service = RunningService(workers=1, env={"FUNDLEDGER_REDIS_URL": valkey})
    async with service:
        assert service.valkey_pid() is None
        assert not (service.data_dir / "valkey.log").exists()
        assert "FUNDLEDGER_REDIS_URL" in service.log.read_text()
        async with Client(service.base_url, service.token) as client:
            assert (await client.get("/readyz")).status == 200


async def test_a_service_without_any_valkey_serves(tmp_path: Path) -> None:
    service = RunningService(workers=1, env={"FUNDLEDGER_REDIS_URL": f"unix://{tmp_path}/none.sock"})
    async with service, Client(service.base_url, service.token) as client:
        a, b = await client.merchant(100), await client.merchant()
        assert (await client.pay(a, b, 1)).status == 201
        assert (await service.verify())["ok"]


# --- `doctor` -------------------------------------------------------------------------------------------------------


async def doctor(tmp_path: Path, url: str) -> dict[str, str]:
    environment = {"FUNDLEDGER_DATA_DIR": str(tmp_path / "data"), "FUNDLEDGER_REDIS_URL": url}
    done = await run("doctor", env={**environment, "FUNDLEDGER_PORT": str(free_port())}, cwd=tmp_path)
    assert "verysecret" not in done.stdout + done.stderr
    lines = done.stdout.splitlines()
    return {line[5:29].strip(): line + after for line, after in zip(lines, [*lines[1:], ""], strict=True)}


async def test_the_doctor_runs_the_embedded_one(tmp_path: Path) -> None:
    found = await doctor(tmp_path, "")
    assert found["embedded Valkey"].startswith("ok")
    assert "valkey 9" in found["embedded Valkey"]


async def test_the_doctor_asks_the_given_one(tmp_path: Path) -> None:
    async with OwnValkey() as own:
        found = await doctor(tmp_path, own.url)
        assert found["Redis"].startswith("ok")
        assert found["maxmemory-policy"].startswith("ok")
        async with Redis.from_url(own.url) as redis:
            await redis.config_set("maxmemory-policy", "allkeys-lru")
        found = await doctor(tmp_path, own.url)
        assert found["maxmemory-policy"].startswith("BAD")
        assert "set noeviction" in found["maxmemory-policy"]


@pytest.mark.parametrize("url", ["unix:///nowhere/at.all", "redis://:verysecret@127.0.0.1:1", "redis://h/?db=x"])
async def test_the_doctor_reports_that_the_given_one_does_not_answer(tmp_path: Path, url: str) -> None:
    found = await doctor(tmp_path, url)
    assert found["Redis"].startswith("BAD")
    assert "does not answer" in found["Redis"]
