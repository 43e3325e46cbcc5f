"""Rate limits depend on the lines of a voucher: no type, order, decoy, hold, list or reversal avoids them."""

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

[[policy]]
name = "pays"
key = "merchant"
classes = ["payment"]
rate = "1/h"
burst = 8
"""


@pytest.fixture(scope="module")
async def limited() -> AsyncIterator[Limited]:
    folder = short_folder()
    file = folder / "limits.toml"
    file.write_text(LIMITS)
    # With the default deadline, a store that is slow for a moment would be treated as unavailable.
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


async def test_withdrawals_by_holds_are_limited_by_the_same_quota(client: Client) -> None:
    a = await client.merchant(100)
    assert (await client.post("/v1/vouchers", withdrawal(a))).status == 201
    answer = await captured(client, a)
    assert answer.status == 201
    says_where_one_stands(answer.headers, "calls", "withdraw")
    for type_ in ("withdraw", "pay", "refund", "confirm"):
        is_denied(await captured(client, a, type_), "withdraw")
    is_denied(await client.post("/v1/vouchers", withdrawal(a)), "withdraw")
    assert (await client.balance(a))["posted"] == 98


@pytest.mark.parametrize("to", ["bank:CNY", "payout_transit:CNY"])
@pytest.mark.parametrize("type_", ["withdraw", "pay", "refund", "settle", "confirm", "notify", "capture", "x"])
async def test_money_that_leaves_an_account_is_limited_whatever_its_type_says(
    client: Client, type_: str, to: str
) -> None:
    a = await client.merchant(100)
    await client.open_account("payout_transit:CNY", "payout_transit", "platform")
    sent = [{**withdrawal(a, to, credit_first=first), "type": type_} for first in (True, False) * 2]
    answers = [await client.post("/v1/vouchers", one) for one in sent]
    assert statuses(answers) == [201, 201, 429, 429]
    is_denied(answers[-1], "withdraw")


async def test_a_decoy_leads_around_no_limit_and_costs_its_owner_nothing(client: Client) -> None:
    a, victim, b = await client.merchant(100), await client.merchant(100), await client.merchant()
    answers = []
    for _ in range(12):
        one = withdrawal(a)
        one["entries"] = [line(victim, "debit", 1), line(victim, "credit", 1), *one["entries"]]
        answers.append(await client.post("/v1/vouchers", one))
    for _ in range(12):
        one = voucher(a, b, 1)
        one["entries"] = [line(victim, "debit", 1), *one["entries"], line(victim, "credit", 1)]
        answers.append(await client.post("/v1/vouchers", one))
    assert statuses(answers) == [201] * 2 + [429] * 10 + [201] * 7 + [429] * 5
    assert [(await client.pay(victim, b, 1)).status for _ in range(8)] == [201] * 7 + [429]
    assert (await client.post("/v1/vouchers", withdrawal(victim))).status == 201


async def test_each_account_that_is_debited_is_charged(client: Client) -> None:
    a, b = await client.merchant(100), await client.merchant(100)
    assert statuses([await client.post("/v1/vouchers", withdrawal(b)) for _ in range(2)]) == [201, 201]
    both = withdrawal(a, credit_first=True)
    both["entries"] = [line(a, "debit", 9), line(b, "debit", 1), line("bank:CNY", "credit", 10)]
    is_denied(await client.post("/v1/vouchers", both), "withdraw")
    answers = [await client.post("/v1/vouchers", withdrawal(a)) for _ in range(3)]
    assert statuses(answers) == [201, 201, 429], "what was refused costs nothing"


async def test_a_list_is_charged_like_its_vouchers(client: Client) -> None:
    a, victim = await client.merchant(100), await client.merchant(100)
    three = [{**withdrawal(a), "type": "pay"} for _ in range(3)]
    for one in three:
        one["entries"] = [line(victim, "credit", 1), *one["entries"], line(victim, "debit", 1)]
    is_denied(await client.post("/v1/vouchers/batch", {"vouchers": three}), "withdraw")
    assert (await client.post("/v1/vouchers/batch", {"vouchers": three[:2]})).status == 200
    is_denied(await client.post("/v1/vouchers/batch", {"vouchers": three[2:]}), "withdraw")


async def test_a_reversal_meets_the_limits_of_the_merchant_that_it_takes_from(client: Client) -> None:
    a, b = await client.merchant(100), await client.merchant()
    paid = [(await client.pay(a, b, 1)).json["id"] for _ in range(2)]
    answers = [await client.post(f"/v1/vouchers/{id_}/reverse", {"id": new_id()}) for id_ in paid]
    assert statuses(answers) == [201, 429]
    is_denied(answers[1], "back")
    assert says_where_one_stands(answers[0].headers, "calls", "back")


async def test_a_reversal_that_takes_money_out_is_a_withdrawal_besides(client: Client) -> None:
    a, bank = await client.merchant(100), await client.bank()
    paid = (await client.pay(bank, a, 1)).json["id"]
    assert statuses([await client.post("/v1/vouchers", withdrawal(a)) for _ in range(2)]) == [201, 201]
    is_denied(await client.post(f"/v1/vouchers/{paid}/reverse", {"id": new_id()}), "withdraw")
    b = await client.merchant()
    assert (await client.pay(a, b, 1)).status == 201
    other = (await client.pay(b, a, 1)).json["id"]
    assert (await client.post(f"/v1/vouchers/{other}/reverse", {"id": new_id()})).status == 201, "none was charged"


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
    assert await limited.used("calls") == used + 1 + len(sent) + 1, "before a look-up, and not twice"
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
async def test_the_headers_and_the_debug_page_contain_ids_only(client: Client, name: str, text: str) -> None:
    answer = await client.get(f"/debug/limits?{name}={text}")
    assert is_problem(answer, 400, "malformed")
    assert answer.json["field"] == name


async def test_what_an_operator_asks_is_limited_as_a_query(limited: Limited, client: Client) -> None:
    for path in ("/debug/limits", "/debug/hotkeys"):
        answer = await client.get(path)
        assert answer.status == 200
        says_where_one_stands(answer.headers, "calls")
