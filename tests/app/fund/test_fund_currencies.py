"""Currencies in the fund service: each request with a currency is refused if ISO 4217 does not have the currency."""

from typing import Any

import pytest

from tests.support.answers import is_problem
from tests.support.fund_http import FundClient

ORDER = {"order_no": "n", "amount": 5, "channel": "c"}
REQUESTS: dict[str, tuple[str, dict[str, Any], str]] = {
    "merchant": ("merchants", {"id": "new", "name": "N"}, "currency"),
    "payment": ("payments", {**ORDER, "merchant": "m"}, "currency"),
    "channel cost": ("channel-costs", ORDER, "currency"),
    "bank difference": ("bank-differences", {**ORDER, "direction": "more", "reason": "r"}, "currency"),
    "bank statement": (
        "bank-statements",
        {"channel": "c", "statement_no": "1", "lines": [{"ref": "r", "amount": 1}]},
        "currency",
    ),
}


@pytest.mark.parametrize("name", REQUESTS)
async def test_a_request_in_no_known_currency_is_refused(fund: FundClient, name: str) -> None:
    path, body, field = REQUESTS[name]
    answer = await fund.post(f"/v1/{path}", {**body, "currency": "XXQ"})
    assert is_problem(answer, 400, "currency-unknown")
    assert answer.json["field"] == field


async def test_a_batch_names_the_payment_whose_currency_is_not_known(fund: FundClient) -> None:
    merchant = await fund.shop()
    good = fund.payment(merchant, "good", 5)
    answer = await fund.post("/v1/payments/batch", {"payments": [good, {**good, "order_no": "x", "currency": "XXQ"}]})
    assert is_problem(answer, 400, "currency-unknown")
    assert answer.json["field"] == "payments[1].currency"
    assert (await fund.get(f"/v1/payments?merchant={merchant}&order_no=good")).status == 404


async def test_the_default_limit_may_be_sent_with_an_order_no(fund: FundClient) -> None:
    merchant = await fund.shop()
    assert (await fund.paid(merchant, "one", 5)).status == 201
    answer = await fund.get(f"/v1/payments?merchant={merchant}&order_no=one&limit=100")
    assert (answer.status, answer.json["order_no"]) == (200, "one")
