"""The command `fundledger hot`: operators split and merge accounts of a running service, and see the result."""

import subprocess
import uuid
from collections.abc import AsyncIterator

import pytest

from tests.support.answers import is_problem
from tests.support.client import Client
from tests.support.running import RunningService, run
from tests.support.waiting import eventually


@pytest.fixture
async def client(service: RunningService) -> AsyncIterator[Client]:
    async with Client(service.base_url, service.token) as client:
        yield client


async def hot(service: RunningService, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return await run("hot", *arguments, env=service.environment, cwd=service.folder)


async def test_an_operator_splits_and_merges_an_account_while_it_is_paid(
    service: RunningService, client: Client
) -> None:
    payer, merchant = await client.merchant(100), await client.merchant()
    done = await hot(service, "split", merchant, "--slots", "3", "--reason", "a sale")
    assert (done.returncode, done.stdout) == (0, f"{merchant}: 3 slots\n")
    assert (await client.pay(payer, merchant, 60)).status == 201
    shown = (await client.get(f"/v1/accounts/{merchant}")).json
    assert (shown["sub_accounts"], shown["balance"]["posted"], shown["heat"]) == (3, 60, "cold")
    listed = (await hot(service, "list")).stdout
    assert any(line.startswith(merchant) and "3 slots" in line and "a sale" in line for line in listed.splitlines())
    assert (await hot(service, "split", merchant, "--slots", "3")).stdout == f"{merchant}: 3 slots, as before\n"
    done = await hot(service, "merge", merchant)
    assert (done.returncode, done.stdout) == (0, f"{merchant}: 1 slot\n")
    assert (await client.pay(merchant, payer, 60)).status == 201
    assert (await service.verify())["ok"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["split", "nobody"], "there is no account nobody"),
        (["split", "nobody", "--slots", "0"], "--slots 0: accepted is 1 to 256"),
        (["split", "nobody", "--slots", "257"], "--slots 257: accepted is 1 to 256"),
    ],
)
async def test_what_cannot_be_split_is_one_line(service: RunningService, arguments: list[str], said: str) -> None:
    done = await hot(service, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1] == f"fundledger: {said}"


async def test_a_frozen_account_is_refused(service: RunningService, client: Client) -> None:
    merchant = await client.merchant()
    assert (await client.post(f"/v1/accounts/{merchant}/freeze", {"reason": "a test"})).status == 200
    done = await hot(service, "split", merchant)
    assert done.returncode == 1
    assert done.stdout.startswith("refused: ")


async def test_a_buffered_account_shows_its_pending_amount_and_is_drained_automatically(client: Client) -> None:
    bank = await client.open_account(f"bank:{uuid.uuid4().hex}", "bank")
    merchant = await client.merchant()
    path = f"/v1/accounts/{merchant}"
    answer = await client.post(f"{path}/policy", {"posting": "buffered", "reason": "a sale"})
    assert (answer.status, answer.json["posting"]) == (200, "buffered")
    for _ in range(20):
        assert (await client.pay(bank, merchant, 5)).status == 201
        balance = (await client.get(path)).json["balance"]
        assert (balance["posted"] + balance["pending"]) % 5 == 0

    async def is_drained() -> bool:
        return bool(
            (await client.get(path)).json["balance"] == {"posted": 100, "held": 0, "pending": 0, "available": 100}
        )

    await eventually(is_drained, "everything is drained")
    assert [e["balance_after"] for e in (await client.get(f"{path}/entries")).json["entries"]] == list(range(5, 101, 5))
    assert b"fundledger_folds_total" in (await client.get("/metrics")).body
    answer = await client.post(f"{path}/policy", {"posting": "direct"})
    assert (answer.status, answer.json["posting"]) == (200, "direct")


async def test_only_merchants_accounts_are_buffered(client: Client) -> None:
    bank = await client.open_account(f"bank:{uuid.uuid4().hex}", "bank")
    for answer in (
        await client.post(f"/v1/accounts/{bank}/policy", {"posting": "buffered"}),
        await client.post(f"/v1/accounts/{bank}/policy", {"posting": "sometimes"}),
        await client.post(
            "/v1/accounts",
            {"id": "r:1", "owner": "r", "type": "receivable", "currency": "CNY", "posting": "buffered"},
        ),
    ):
        is_problem(answer, 400, "malformed")
        assert answer.json["field"] == "posting"
    is_problem(await client.post("/v1/accounts/nobody/policy", {"posting": "buffered"}), 404, "not-found")
