"""The processes of `serve`: starts that are refused, readable files, stop and restart."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from fundledger.app.commands.cli import main
from fundledger.app.host import preflight as claims
from fundledger.settings import BadSetting, read_settings
from tests.support.client import Client, new_id, voucher
from tests.support.running import RunningService, free_port, of_process, run
from tests.support.waiting import eventually
from tests.support.wire import connected, request


@pytest.fixture(scope="module")
async def own() -> AsyncIterator[RunningService]:
    """Start a service that the tests of this module may stop, kill and start again."""
    service = RunningService(workers=2)
    try:
        yield service
        if service.is_running():
            assert (await service.verify())["ok"]
    finally:
        await service.remove()


@pytest.fixture
async def restarted(own: RunningService) -> RunningService:
    """Return the running service. It is started first if the test before has stopped it."""
    if not own.is_running():
        await own.start()
    return own


def one_line(text: str) -> str:
    lines = text.strip().splitlines()
    assert len(lines) == 1, text
    return lines[0]


# --- Refusals to start ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "accepted"),
    [
        ("PORT", "0", "1"),
        ("PORT", "65536", "65535"),
        ("PORT", "http", "integer"),
        ("WORKERS", "0", "1"),
        ("WORKERS", "many", "integer"),
        ("SHARDS", "0", "1"),
        ("SHARDS", "1025", "1024"),
        ("BATCH_SIZE_MAX", "-1", "1"),
        ("POSTING", "buffered", "'lanes' or 'direct'"),
        ("PROFILE", "staging", "'dev' or 'prod'"),
        ("ACCOUNTING_TIMEZONE", "Mars/Olympus", "time zone"),
        ("ACCOUNTING_CUT", "25:00", "time"),
        ("ACCOUNTING_CUT", "23:00:30", "whole minutes"),
        ("ACCOUNTING_CUT", "23:00:00.5", "whole minutes"),
        ("ACCOUNTING_CUT", "23:00+08:00", "whole minutes"),
        ("REDIS_URL", "http://127.0.0.1:6379", "redis://HOST:PORT/DATABASE, rediss://... or unix:///PATH"),
        ("REDIS_URL", "redis://", "redis://HOST"),
        ("REDIS_URL", "redis://host:seven", "redis://HOST"),
        ("REDIS_URL", "redis://host:0", "redis://HOST"),
        ("REDIS_URL", "unix://", "unix:///PATH"),
        ("REDIS_URL", "127.0.0.1:6379", "redis://HOST"),
        ("DRAIN_S", "0", "1"),
        ("LOG_LEVEL", "loud", "'debug'"),
        ("POSTGRES_MEMORY_MB", "-5", "0"),
        ("FUND", "perhaps", "'on' or 'off'"),
        ("FUND_PORT", "0", "1"),
        ("FUND_PORT", "8080", "a port other than FUNDLEDGER_PORT"),
        ("SIMULATOR_PORT", "8081", "a port other than FUNDLEDGER_FUND_PORT"),
        ("ACCOUNT_URL", "127.0.0.1:8080", "http://HOST:PORT"),
        ("ACCOUNT_URL", "ftp://host", "http://HOST:PORT"),
        ("ACCOUNT_URL", "http://host:seven", "http://HOST:PORT"),
        ("ACCOUNT_URL", "http://host/v1", "http://HOST:PORT"),
        ("ACCOUNT_URL", "http:// host", "http://HOST:PORT"),
        ("CHANNELS", "icbc", "NAME=http://HOST:PORT"),
        ("CHANNELS", "icbc=http://host", "NAME=http://HOST:PORT"),
        ("CHANNELS", "i:c=http://host:1", "NAME=http://HOST:PORT"),
        ("CHANNELS", "a=http://h:1,a=http://h:2", "each name once"),
        ("CHANNELS", "a=http://h:1,", "NAME=http://HOST:PORT"),
        ("SETTLE_AT", "2 o'clock", "time"),
        ("SETTLE_AT", "02:00Z", "local time"),
        ("WEEKEND", "saturday", "mon, tue"),
        ("WEEKEND", "sat,sat", "at most six"),
        ("WEEKEND", "mon,tue,wed,thu,fri,sat,sun", "at most six"),
        ("DAEMONS", "17", "16"),
    ],
)
def test_a_bad_setting_is_one_line_with_its_name_its_value_and_what_is_accepted(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    value: str,
    accepted: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(f"FUNDLEDGER_{name}", value)
    with pytest.raises(SystemExit) as ended:
        main(["settings"])
    line = one_line(capsys.readouterr().err)
    assert ended.value.code == 2
    assert f"FUNDLEDGER_{name}" in line
    assert value in line
    assert accepted in line


async def test_serve_with_a_bad_setting_makes_nothing(tmp_path: Path) -> None:
    environment = {"FUNDLEDGER_DATA_DIR": str(tmp_path / "data"), "FUNDLEDGER_WORKERS": "many"}
    done = await run("serve", env=environment, cwd=tmp_path)
    assert done.returncode == 2
    assert "FUNDLEDGER_WORKERS" in one_line(done.stderr)
    assert not (tmp_path / "data").exists()


async def test_a_setting_that_does_not_exist_is_refused_with_the_nearest_that_does(tmp_path: Path) -> None:
    done = await run("serve", env={"FUNDLEDGER_WORKRES": "3"}, cwd=tmp_path)
    assert done.returncode == 2
    assert "FUNDLEDGER_WORKRES" in one_line(done.stderr)
    assert "FUNDLEDGER_WORKERS" in done.stderr


@pytest.mark.parametrize(
    ("toml", "told"),
    [
        ("workers = 'many'", "FUNDLEDGER_WORKERS"),
        ("wrokers = 3", "FUNDLEDGER_WROKERS"),
        ("workers = ", "fundledger.toml"),
    ],
)
async def test_a_bad_file_is_one_line_too(tmp_path: Path, toml: str, told: str) -> None:
    (tmp_path / "fundledger.toml").write_text(toml)
    done = await run("serve", env={}, cwd=tmp_path)
    assert done.returncode == 2
    assert told in one_line(done.stderr)


async def test_the_environment_wins_over_the_file_and_the_command_line_over_both(tmp_path: Path) -> None:
    (tmp_path / "fundledger.toml").write_text("workers = 3\nshards = 5\n")
    done = await run("settings", env={"FUNDLEDGER_WORKERS": "4"}, cwd=tmp_path)
    shown = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert "4" in shown["workers"].split() and "environment" in shown["workers"]
    assert "5" in shown["shards"].split() and "fundledger.toml" in shown["shards"]
    assert "default" in shown["port"]
    done = await run("serve", "--workers", "0", env={"FUNDLEDGER_WORKERS": "4"}, cwd=tmp_path)
    assert (done.returncode, "FUNDLEDGER_WORKERS" in done.stderr) == (2, True)


async def test_settings_shows_no_secret(tmp_path: Path) -> None:
    dsn = "postgresql://someone:verysecret@db.example/fund"
    done = await run("settings", env={"FUNDLEDGER_ACCOUNT_DSN": dsn, "FUNDLEDGER_FUND_DSN": dsn}, cwd=tmp_path)
    assert done.returncode == 0
    assert "verysecret" not in done.stdout + done.stderr
    for name in ("account_dsn", "fund_dsn"):
        row = next(line for line in done.stdout.splitlines() if line.startswith(name))
        assert "****" in row
        assert f"FUNDLEDGER_{name.upper()}" in row


@pytest.mark.parametrize(
    ("name", "value"),
    [("ACCOUNT_URL", "http://someone:verysecret@h"), ("CHANNELS", "a=http://h:1,b=http://someone:verysecret@h:1")],
)
def test_a_password_in_a_url_that_takes_none_is_refused_and_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(f"FUNDLEDGER_{name}", value)
    with pytest.raises(BadSetting) as refused:
        read_settings()
    assert f"FUNDLEDGER_{name}='****'" in str(refused.value)
    assert "verysecret" not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["redis://:verysecret@10.0.0.1:6379/2", "rediss://someone:verysecret@r", "unix:///r?password=verysecret"]
)
async def test_a_url_of_redis_is_a_secret_when_it_carries_a_password(tmp_path: Path, url: str) -> None:
    done = await run("settings", env={"FUNDLEDGER_REDIS_URL": url}, cwd=tmp_path)
    assert done.returncode == 0
    assert "verysecret" not in done.stdout + done.stderr
    done = await run("settings", env={"FUNDLEDGER_REDIS_URL": f"http:{url}"}, cwd=tmp_path)
    assert done.returncode == 2
    assert "FUNDLEDGER_REDIS_URL='****'" in one_line(done.stderr)


async def test_a_url_of_redis_without_a_password_is_shown(tmp_path: Path) -> None:
    done = await run("settings", env={"FUNDLEDGER_REDIS_URL": "redis://10.0.0.1:6379/2"}, cwd=tmp_path)
    assert "redis://10.0.0.1:6379/2" in done.stdout


async def test_a_data_directory_that_cannot_be_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    environment = {"FUNDLEDGER_DATA_DIR": str(tmp_path / "data"), "FUNDLEDGER_PORT": str(free_port())}
    environment["FUNDLEDGER_FUND"] = "off"
    done = await run("serve", env=environment, cwd=tmp_path)
    assert done.returncode == 2
    assert "FUNDLEDGER_DATA_DIR" in one_line(done.stderr)


async def test_a_database_that_cannot_be_reached_is_one_line(tmp_path: Path) -> None:
    environment = {
        "FUNDLEDGER_DATA_DIR": str(tmp_path / "data"),
        "FUNDLEDGER_PORT": str(free_port()),
        "FUNDLEDGER_FUND": "off",
        "FUNDLEDGER_ACCOUNT_DSN": f"postgresql://someone:verysecret@127.0.0.1:{free_port()}/none",
    }
    done = await run("serve", env=environment, cwd=tmp_path)
    assert done.returncode == 2
    assert "database" in one_line(done.stderr)
    assert "verysecret" not in done.stderr


async def test_a_second_serve_on_the_data_directory_is_refused(service: RunningService) -> None:
    environment = {**service.environment, "FUNDLEDGER_PORT": str(free_port())}
    done = await run("serve", env=environment, cwd=service.folder)
    assert done.returncode == 2
    line = one_line(done.stderr)
    assert str(service.data_dir) in line
    assert str(service.process.pid) in line
    async with Client(service.base_url, service.token) as client:
        assert (await client.get("/readyz")).status == 200


async def test_a_port_that_is_taken_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "PORT_WAIT_S", 0.1)
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(claims.CannotServe, match=f"FUNDLEDGER_PORT={port}"):
            await claims.wait_for_port("127.0.0.1", port, "PORT")
    await claims.wait_for_port("127.0.0.1", port, "PORT")


async def test_a_ledger_of_another_layout_is_refused(service: RunningService, tmp_path: Path) -> None:
    environment = {
        "FUNDLEDGER_DATA_DIR": str(tmp_path / "data"),
        "FUNDLEDGER_PORT": str(free_port()),
        "FUNDLEDGER_FUND": "off",
        "FUNDLEDGER_ACCOUNT_DSN": service.dsn,
        "FUNDLEDGER_SHARDS": "7",
    }
    # The keys are copied: without them the start would be refused for another reason.
    shutil.copytree(service.data_dir / "keys", tmp_path / "data" / "keys")
    done = await run("serve", env=environment, cwd=tmp_path)
    assert done.returncode == 2
    line = one_line(done.stderr)
    assert "FUNDLEDGER_SHARDS=7" in line
    assert line.endswith("set 1")


async def test_the_dev_profile_listens_on_loopback_only(tmp_path: Path) -> None:
    done = await run("serve", env={"FUNDLEDGER_HOST": "0.0.0.0"}, cwd=tmp_path)
    assert done.returncode == 2
    assert "FUNDLEDGER_HOST='0.0.0.0'" in one_line(done.stderr)


# --- Readable files -------------------------------------------------------------------------------------------------


SECRET_FILES = ("dev-token", "fund-token", "account-dsn", "fund-dsn", "postgres-password", "keys/mac-1.key")


def secrets_of(platform: RunningService) -> dict[str, str]:
    """Return the contents of the secret files, by file."""
    found = {"dev-token": platform.token, "fund-token": (platform.data_dir / "fund-token").read_text().strip()}
    for name, dsn in (("account-dsn", platform.dsn), ("fund-dsn", platform.fund_dsn)):
        found[name] = dsn.partition("://")[2].partition("@")[0].rpartition(":")[2]
    for path in (platform.data_dir / "keys").rglob("*.key"):
        found[str(path.relative_to(platform.data_dir))] = path.read_text().strip()
    assert all(len(secret) > 20 for secret in found.values()), found.keys()
    return found


def processes_of(platform: RunningService) -> dict[str, list[int]]:
    """Return the process ids of both services, by role."""
    assert platform.process is not None
    found = {
        "supervisor": [platform.process.pid],
        "account workers": platform.worker_pids(),
        "fund workers": platform.fund_pids(),
        "jobs": platform.jobs_pids(),
        "simulator": platform.simulator_pids(),
        "postgres": [platform.postgres_pid()],
        "valkey": [platform.valkey_pid()],
    }
    assert all(pids and all(pids) for pids in found.values()), found
    return found  # type: ignore[return-value]


async def test_secrets_are_in_files_that_only_the_owner_reads(platform: RunningService) -> None:
    for name in SECRET_FILES:
        assert stat.S_IMODE((platform.data_dir / name).stat().st_mode) == 0o600, name
    secrets = [secret.encode() for secret in secrets_of(platform).values()]
    for path in platform.data_dir.rglob("*"):
        mode, kind = stat.S_IMODE(path.lstat().st_mode), stat.S_IFMT(path.lstat().st_mode)
        if kind == stat.S_IFDIR and path.name == "keys":
            assert mode == 0o700, path
        elif kind == stat.S_IFREG and "postgres" not in path.parts:
            assert not mode & 0o077 or not any(secret in path.read_bytes() for secret in secrets), path


async def test_no_secret_is_in_a_log_or_on_a_command_line(platform: RunningService) -> None:
    logs = [platform.log, *platform.data_dir.glob("*.log")]
    assert platform.data_dir / "postgres.log" in logs
    shown = {str(path): path.read_bytes() for path in logs}
    for what, pids in processes_of(platform).items():
        for pid in pids:
            for name in ("cmdline", "environ"):
                shown[f"{name} of {what}"] = of_process(pid, name)
    leaks = [
        (name, where)
        for name, secret in secrets_of(platform).items()
        for where in shown
        if secret.encode() in shown[where]
    ]
    assert leaks == []


# --- Stopping and starting again ------------------------------------------------------------------------------------


async def is_gone(service: RunningService) -> bool:
    return not service.worker_pids() and service.postgres_pid() is None and service.valkey_pid() is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_everything_and_a_restart_finds_the_data(
    restarted: RunningService, number: signal.Signals
) -> None:
    async with Client(restarted.base_url, restarted.token) as client:
        a, b = await client.merchant(10), await client.merchant()
        asked = voucher(a, b, 7)
        first = await client.post("/v1/vouchers", asked)
        token = restarted.token
    restarted.process.send_signal(number)
    assert await restarted.ended() == 0
    assert await is_gone(restarted)
    await restarted.start()
    assert restarted.token == token
    async with Client(restarted.base_url, token) as client:
        again = await client.post("/v1/vouchers", asked)
        assert (again.status, again.body) == (200, first.body)
        assert (await client.balance(b))["posted"] == 7


async def test_what_was_accepted_before_sigterm_is_answered_before_the_end(restarted: RunningService) -> None:
    """The test locks the row of the payer, so that the payments are in flight when the signal is sent."""
    async with Client(restarted.base_url, restarted.token) as client:
        a, b = await client.merchant(100), await client.merchant()
    holder = await asyncpg.connect(restarted.dsn)
    try:
        transaction = holder.transaction()
        await transaction.start()
        query = """SELECT 1 FROM ledger.sub_accounts s JOIN ledger.accounts a ON a.number = s.account_number
                   WHERE a.id = $1 FOR UPDATE OF s"""
        assert await holder.fetchval(query, a)
        async with contextlib.AsyncExitStack() as stack:
            wires = [await stack.enter_async_context(connected(restarted.base_url)) for _ in range(12)]
            for i, wire in enumerate(wires):
                body = voucher(a, b, 1)
                if i % 2:  # on the fast path
                    await wire.send(request("GET", "/healthz", None))
                    assert (await wire.reply()).status == 200
                await wire.send(request("POST", "/v1/vouchers", restarted.token, json.dumps(body).encode()))
            # After every worker has answered other requests, all payments have been read.
            await eventually(lambda: waiting_for_locks(holder), "payments wait for the lock")
            async with Client(restarted.base_url, restarted.token) as client:
                for _ in range(10):
                    assert (await client.get("/healthz")).status == 200
            restarted.process.send_signal(signal.SIGTERM)
            await eventually(lambda: refuses_connections(restarted), "nothing new is accepted")
            assert restarted.is_running()
            await transaction.rollback()
            replies = [await wire.reply() for wire in wires]
    finally:
        await holder.close()
    assert [reply.status for reply in replies] == [201] * 12
    assert await restarted.ended() == 0
    await restarted.start()
    async with Client(restarted.base_url, restarted.token) as client:
        assert (await client.balance(b))["posted"] == 12


async def waiting_for_locks(connection: "asyncpg.Connection[asyncpg.Record]") -> bool:
    query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name LIKE 'fundledger lane%'"
    return bool(await connection.fetchval(query))


async def refuses_connections(service: RunningService) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", service.port)
    except ConnectionError:
        return True
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    return False


async def test_a_worker_that_was_killed_is_replaced(restarted: RunningService) -> None:
    before = restarted.worker_pids()
    assert len(before) == 2
    os.kill(before[0], signal.SIGKILL)

    def replaced() -> bool:
        now = restarted.worker_pids()
        return len(now) == 2 and before[0] not in now

    await eventually(replaced, "another worker is started")
    async with Client(restarted.base_url, restarted.token) as client:
        a, b = await client.merchant(100), await client.merchant()

    async def both_answer() -> bool:
        async with Client(restarted.base_url, restarted.token) as client:
            return b"fundledger_workers 2.0" in (await client.get("/metrics")).body

    await eventually(both_answer, "both workers answer")
    for _ in range(20):
        async with Client(restarted.base_url, restarted.token) as client:
            assert (await client.pay(a, b, 1)).status == 201
    assert before[1] in restarted.worker_pids()
    assert restarted.is_running()


async def test_workers_end_when_their_supervisor_was_killed_and_a_new_one_starts_on_the_data(
    restarted: RunningService,
) -> None:
    async with Client(restarted.base_url, restarted.token) as client:
        a, b = await client.merchant(10), await client.merchant()
        asked = voucher(a, b, 7)
        first = await client.post("/v1/vouchers", asked)
    restarted.kill()
    await eventually(lambda: is_gone(restarted), "workers, Postgres and Valkey end by themselves", 40)
    await restarted.start()
    async with Client(restarted.base_url, restarted.token) as client:
        assert (await client.post("/v1/vouchers", asked)).body == first.body


async def test_readiness_and_answers_while_the_database_is_away(restarted: RunningService) -> None:
    async with Client(restarted.base_url, restarted.token) as client:
        a, b = await client.merchant(100), await client.merchant()
        first = restarted.postgres_pid()
        os.kill(first, signal.SIGKILL)
        id_ = new_id()
        paid = await client.pay(a, b, 1, id_)
        assert paid.status in (201, 503)
        if paid.status == 503:
            assert paid.headers["Retry-After"]

        async def is_ready() -> bool:
            return (await client.get("/readyz")).status == 200

        await eventually(lambda: restarted.postgres_pid() not in (None, first), "another Postgres", 60)
        await eventually(is_ready, "the database is back", 60)
        assert (await client.pay(a, b, 1, id_)).status in (200, 201)
        assert (await client.balance(b))["posted"] == 1
