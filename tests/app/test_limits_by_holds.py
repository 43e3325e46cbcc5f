"""Limits that cannot be walked around: by way of a hold, in the order of lines, by a reversal; and what they must not stop."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.answers import is_problem
from tests.support.client import Answer, Client, line, new_id, voucher
from tests.support.limits import Limited, is_denied, says_where_one_stands, statuses
from tests.support.running import RunningService, short_folder

LIMITS = """
version = 1

[[policy]]
name = "calls"
key = "caller"
rate = "1/d"
burst = 20_000
mode = "strict"

[[policy]]
name = "withdraw"
key = "account"
classes = ["withdraw"]
rate = "1/h"
burst = 2

[[policy]]
name = "back"
key = "merchant"
classes = ["refund"]
rate = "1/h"
burst = 1

[types]
withdraw = ["withdraw"]
"""


@pytest.fixture(scope="module")
async def limited() -> AsyncIterator[Limited]:
    folder = short_folder()
    file = folder / "limits.toml"
    file.write_text(LIMITS)
    # One that is slow for a moment would be believed to be away.
    environment = {"FUNDLEDGER_RATELIMIT_FILE": str(file), "FUNDLEDGER_RATELIMIT_DEADLINE_MS": "1000"}
    service = RunningService(workers=1, env=environment)
    try:
        await service.start()
        yield Limited(service, file)
        assert (await service.verify())["ok"]
        assert await service.stop() == 0, service.log_tail()
    finally:
        await service.remove()
        with contextlib.suppress(FileNotFoundError):
            file.unlink()
        folder.rmdir()


@pytest.fixture
async def client(limited: Limited) -> AsyncIterator[Client]:
    async with limited.one() as client:
        yield client


def withdrawal(account: str, to: str = "bank:CNY", *, credit_first: bool = False) -> dict[str, Any]:
    entries = [line(account, "debit", 1), line(to, "credit", 1)]
    return {**voucher(account, to, 1), "type": "withdraw", "entries": entries[::-1] if credit_first else entries}


async def held(client: Client, account: str) -> str:
    hold = {"id": f"hold:{new_id()}", "account": account, "amount": 1}
    assert (await client.post("/v1/holds", hold)).status == 201
    return hold["id"]


async def captured(client: Client, account: str, type_: str = "withdraw") -> Answer:
    hold = await held(client, account)
    return await client.post(f"/v1/holds/{hold}/capture", {"voucher": {**withdrawal(account), "type": type_}})


async def test_who_withdraws_by_way_of_holds_has_no_more_than_his_quota(client: Client) -> None:
    a = await client.merchant(100)
    assert (await client.post("/v1/vouchers", withdrawal(a))).status == 201
    answer = await captured(client, a)
    assert answer.status == 201
    says_where_one_stands(answer.headers, "calls", "withdraw")
    is_denied(await captured(client, a), "withdraw")
    is_denied(await client.post("/v1/vouchers", withdrawal(a)), "withdraw")
    assert (await captured(client, a, "pay")).status == 201, "what is no withdrawal is not limited as one"
    assert (await client.balance(a))["posted"] == 97


async def test_a_withdrawal_to_another_merchant_is_of_who_pays_in_whatever_order_its_lines_stand(
    client: Client,
) -> None:
    a, b = await client.merchant(100), await client.merchant(100)
    answers = [await client.post("/v1/vouchers", withdrawal(a, b, credit_first=True)) for _ in range(3)]
    assert statuses(answers) == [201, 201, 429]
    is_denied(answers[-1], "withdraw")
    assert (await client.post("/v1/vouchers", withdrawal(b, a, credit_first=True))).status == 201


async def test_a_reversal_meets_the_limits_of_the_merchant_whose_voucher_it_undoes(client: Client) -> None:
    a, b = await client.merchant(100), await client.merchant()
    paid = [(await client.pay(a, b, 1)).json["id"] for _ in range(2)]
    answers = [await client.post(f"/v1/vouchers/{id_}/reverse", {"id": new_id()}) for id_ in paid]
    assert statuses(answers) == [201, 429]
    is_denied(answers[1], "back")


async def test_each_request_about_a_hold_costs_its_caller_one_and_is_counted_once(
    limited: Limited, client: Client
) -> None:
    a = await client.merchant(100)
    holds = [await held(client, a) for _ in range(2)]
    paid = (await client.pay(a, "bank:CNY", 1)).json["id"]

    async def decided() -> float:
        counts = (await limited.metrics())["ratelimit_decisions_total"]
        return sum(value for labels, value in counts.items() if {"allow", "deny"} & set(labels))

    sent = [
        (f"/v1/holds/{holds[0]}/capture", {"voucher": withdrawal(a)}, 201),
        (f"/v1/holds/{holds[1]}/release", {}, 200),
        (f"/v1/vouchers/{paid}/reverse", {"id": new_id()}, 201),
        ("/v1/holds/nothing/release", {}, 404),
        ("/v1/holds/nothing/capture", {"voucher": withdrawal(a)}, 404),
        (f"/v1/vouchers/{new_id()}/reverse", {"id": new_id()}, 404),
        ("/v1/holds", {"id": "h", "account": "m:nobody", "amount": 1}, 422),
    ]
    used, before = await limited.used("calls"), await decided()
    assert await limited.used("calls") == used + 1, "who asks where he stands pays for a query"
    for path, body, status in sent:
        assert (await client.post(path, body)).status == status, path
    assert await limited.used("calls") == used + 1 + len(sent) + 1
    assert await decided() == before + len(sent) + 2


async def test_an_account_that_used_up_its_withdrawals_can_be_frozen(client: Client) -> None:
    a = await client.merchant(100)
    answers = [await client.post("/v1/vouchers", withdrawal(a)) for _ in range(3)]
    assert statuses(answers) == [201, 201, 429]
    for _ in range(3):
        answer = await client.post(f"/v1/accounts/{a}/freeze", {"reason": "too many withdrawals"})
        assert answer.status == 200
        says_where_one_stands(answer.headers, "calls")


@pytest.mark.parametrize("name", ["caller", "merchant", "account"])
@pytest.mark.parametrize("text", ["", "a" * 129, "a%20b", "%00", "%C3%A9", "a%0A"])
async def test_where_one_stands_is_told_of_ids_only(client: Client, name: str, text: str) -> None:
    answer = await client.get(f"/debug/limits?{name}={text}")
    assert is_problem(answer, 400, "malformed")
    assert answer.json["field"] == name


async def test_what_an_operator_asks_is_limited_as_a_query(limited: Limited, client: Client) -> None:
    for path in ("/debug/limits", "/debug/hotkeys"):
        answer = await client.get(path)
        assert answer.status == 200
        says_where_one_stands(answer.headers, "calls")
