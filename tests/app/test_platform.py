"""Both services in one `serve`: processes, files, the order in which processes end, and the death of a process."""

import os
import signal
import stat
from collections.abc import AsyncIterator

import asyncpg
import pytest

from tests.support.client import Client, new_id, voucher
from tests.support.running import RunningService, of_process
from tests.support.waiting import eventually


async def alive(base_url: str) -> bool:
    async with Client(base_url, token=None) as client:
        try:
            return (await client.get("/healthz")).status == 200
        except OSError:
            return False


async def count(dsn: str, query: str) -> int:
    connection = await asyncpg.connect(dsn)
    try:
        return int(await connection.fetchval(query))
    finally:
        await connection.close()


async def test_everything_runs_on_a_port_of_its_own_that_the_banner_shows(platform: RunningService) -> None:
    for place in (platform.base_url, platform.fund_url, platform.simulator_url):
        assert await alive(place)
        assert place in platform.log.read_text()
    assert "/v1/merchants" in platform.log.read_text()
    assert (len(platform.worker_pids()), len(platform.fund_pids()), len(platform.jobs_pids())) == (1, 1, 1)


async def test_both_databases_stand_on_one_server_each_with_its_schema(platform: RunningService) -> None:
    query = "SELECT count(*) FROM information_schema.tables WHERE table_schema = '{}'"
    assert await count(platform.dsn, query.format("ledger")) > 0 < await count(platform.fund_dsn, query.format("fund"))
    assert (
        await count(platform.dsn, query.format("fund")) == 0 == await count(platform.fund_dsn, query.format("ledger"))
    )


async def test_secrets_of_the_fund_service_are_readable_for_the_owner_only_and_shown_nowhere(
    platform: RunningService,
) -> None:
    for name in ("fund-token", "fund-dsn", "simulator-token"):
        assert stat.S_IMODE((platform.data_dir / name).stat().st_mode) == 0o600, name
    for name in ("fund-token", "simulator-token"):
        secret = (platform.data_dir / name).read_bytes().strip()
        assert secret not in platform.log.read_bytes()
        for pid in (*platform.fund_pids(), *platform.jobs_pids(), *platform.simulator_pids()):
            for shown in ("cmdline", "environ"):
                assert secret not in of_process(pid, shown)


async def test_the_simulator_answers_its_own_token_only_and_the_fund_service_pays_out_through_it(
    platform: RunningService,
) -> None:
    for token in (None, platform.token, platform.fund_token):
        async with Client(platform.simulator_url, token) as client:
            assert (await client.post("/behaviour", {"bounce_rate": 1.0})).status == 401
    merchant = new_id()
    payment = {"amount": 1_000, "currency": "CNY", "channel": "simulator", "settle": "now"}
    async with Client(platform.fund_url, platform.token) as fund:
        await fund.post("/v1/merchants", {"id": merchant, "name": "A shop", "currency": "CNY"})
        await fund.post("/v1/payments", {"merchant": merchant, "order_no": "p", **payment})
        drawn = await fund.post(
            "/v1/withdrawals", {"merchant": merchant, "order_no": "w", "amount": 600, "channel": "simulator"}
        )
        assert drawn.status == 201

        async def paid() -> bool:
            return bool((await fund.get(f"/v1/withdrawals/{drawn.json['id']}")).json["state"] == "paid")

        await eventually(paid, "the simulator has paid it")
    async with Client(platform.simulator_url, platform.simulator_token) as client:
        assert (await client.get("/behaviour")).json["bounce_rate"] == 0.0


async def test_the_account_service_knows_the_fund_service_by_its_token(platform: RunningService) -> None:
    token = (platform.data_dir / "fund-token").read_text().strip()
    async with Client(platform.base_url, token) as client:
        assert (await client.get("/v1/accounts/nobody")).status == 404
    async with Client(platform.base_url, token + "x") as client:
        assert (await client.get("/v1/accounts/nobody")).status == 401


async def test_the_metrics_of_the_fund_service_are_asked_of_the_fund_service(platform: RunningService) -> None:
    async with Client(platform.fund_url, platform.token) as client:
        page = await client.get("/metrics")
    assert page.status == 200
    assert b"fundledger_fund_" in page.body


@pytest.mark.parametrize("kind", ["fund_pids", "jobs_pids", "simulator_pids"])
async def test_one_that_was_killed_is_replaced_and_the_account_service_serves_on(
    platform: RunningService, kind: str
) -> None:
    others = platform.worker_pids()
    (killed,) = getattr(platform, kind)()
    os.kill(killed, signal.SIGKILL)
    async with Client(platform.base_url, platform.token) as client:
        a, b = await client.merchant(100), await client.merchant()
        assert (await client.pay(a, b, 1)).status == 201
    await eventually(lambda: len(now := getattr(platform, kind)()) == 1 and now != [killed], "another one is started")
    for place in (platform.fund_url, platform.simulator_url):
        await eventually(lambda place=place: alive(place), "it serves again")
    assert platform.worker_pids() == others


# --- Stopping and starting again ------------------------------------------------------------------------------------


@pytest.fixture
async def own() -> AsyncIterator[RunningService]:
    async with RunningService(workers=1, fund=True) as service:
        yield service


def all_pids(service: RunningService) -> list[int]:
    served = [*service.worker_pids(), *service.fund_pids(), *service.jobs_pids(), *service.simulator_pids()]
    return served + [pid for pid in (service.postgres_pid(), service.valkey_pid()) if pid is not None]


async def test_clients_end_before_their_servers_and_a_second_start_finds_all_data(own: RunningService) -> None:
    """The account service and the simulator end last, because a fund worker that is draining calls them."""
    tokens = [(own.data_dir / name).read_text() for name in ("dev-token", "fund-token", "fund-dsn")]
    (fund,) = own.fund_pids()
    async with Client(own.base_url, own.token) as client:
        a, b = await client.merchant(10), await client.merchant()
        os.kill(fund, signal.SIGSTOP)
        own.process.send_signal(signal.SIGTERM)
        await eventually(lambda: not own.jobs_pids(), "the job processes end")
        asked = voucher(a, b, 7)
        first = await client.post("/v1/vouchers", asked)
        assert first.status == 201
        assert await alive(own.simulator_url)
        assert own.fund_pids() == [fund]
    os.kill(fund, signal.SIGCONT)
    assert await own.ended() == 0, own.log_tail()
    assert all_pids(own) == []
    await own.start()
    assert [(own.data_dir / name).read_text() for name in ("dev-token", "fund-token", "fund-dsn")] == tokens
    async with Client(own.base_url, own.token) as client:
        assert (await client.post("/v1/vouchers", asked)).body == first.body
    assert await alive(own.fund_url)
    own.kill()
    await eventually(lambda: all_pids(own) == [], "everything ends when the supervisor was killed", 40)
