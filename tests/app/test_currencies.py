"""Currencies of the account service: ISO 4217 codes that have a minor unit, and no others."""

import uuid

import pytest

from fundledger.currencies import EXPONENTS
from tests.support.answers import is_problem
from tests.support.client import Client


@pytest.mark.parametrize(
    ("code", "exponent"), [("CNY", 2), ("USD", 2), ("EUR", 2), ("JPY", 0), ("KWD", 3), ("TND", 3), ("CLF", 4)]
)
def test_a_currency_has_the_exponent_of_the_standard(code: str, exponent: int) -> None:
    assert EXPONENTS[code] == exponent


@pytest.mark.parametrize("code", ["XXQ", "ZZZ", "XXX", "XTS", "XAU", "XDR", "HRK"])
def test_a_code_without_a_minor_unit_or_a_country_that_uses_it_is_none(code: str) -> None:
    assert code not in EXPONENTS


def test_the_table_has_every_active_currency() -> None:
    assert len(EXPONENTS) == 165
    assert all(len(code) == 3 and code.isascii() and code.isupper() for code in EXPONENTS)


@pytest.mark.parametrize("code", ["XXQ", "XTS", "XAU"])
async def test_an_account_in_no_known_currency_is_refused(client: Client, code: str) -> None:
    id_ = f"merchant:{uuid.uuid4().hex}:available"
    asked = {"id": id_, "owner": "m", "type": "merchant_available", "currency": code}
    answer = await client.post("/v1/accounts", asked)
    assert is_problem(answer, 400, "currency-unknown")
    assert answer.json["field"] == "currency"
    assert code in answer.json["detail"]
    assert (await client.get(f"/v1/accounts/{id_}")).status == 404
    assert (await client.post("/v1/accounts", {**asked, "currency": "JPY"})).status == 201


@pytest.mark.parametrize("code", ["cny", "CN", "CNYX", "", "CN\u00dd"])
async def test_what_does_not_look_like_a_code_is_malformed(client: Client, code: str) -> None:
    asked = {"id": uuid.uuid4().hex, "owner": "m", "type": "merchant_available", "currency": code}
    assert is_problem(await client.post("/v1/accounts", asked), 400, "malformed")
