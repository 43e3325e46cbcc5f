"""A channel gets the payee with each payout, and executes a payout for one payee only."""

import sqlite3
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from fundledger.fund.channels.channel import ChannelSilent, Standing
from fundledger.fund.channels.http import HttpChannel
from fundledger.fund.channels.simulator import Bank, PayoutBody
from fundledger.fund.model.bank_account import BankAccount
from tests.fund.bank import RunningBank
from tests.fund.test_channels import GOOD, REF, answering

IBAN = BankAccount("Tea House Ltd", "DE89370400440532013000")
NATIONAL = BankAccount("茶馆", account="62220001", bank_code="102100099996")


@pytest.mark.parametrize(
    ("payee", "sent"),
    [
        (None, {}),
        (IBAN, {"payee": {"holder": "Tea House Ltd", "iban": "DE89370400440532013000"}}),
        (NATIONAL, {"payee": {"holder": "茶馆", "account": "62220001", "bank_code": "102100099996"}}),
    ],
)
async def test_the_body_of_a_payout_names_the_payee(payee: BankAccount | None, sent: dict[str, Any]) -> None:
    bodies = []

    async def answer(request: web.Request) -> web.Response:
        bodies.append(await request.json())
        return web.json_response(GOOD)

    async with answering(answer) as url, HttpChannel(url) as channel:
        assert (await channel.pay_out(REF, 5, "CNY", payee)).state is Standing.PAID
    assert bodies == [{"ref": REF, "amount": 5, "currency": "CNY", **sent}]


@pytest.mark.parametrize(("first", "then"), [(IBAN, NATIONAL), (IBAN, None), (None, IBAN)])
async def test_the_simulator_pays_a_payout_to_one_payee(
    bank: RunningBank, first: BankAccount | None, then: BankAccount | None
) -> None:
    async with HttpChannel(bank.url, token=bank.token) as channel:
        paid = await channel.pay_out(REF, 500, "CNY", first)
        assert await channel.pay_out(REF, 500, "CNY", first) == paid
        with pytest.raises(ChannelSilent, match="409"):
            await channel.pay_out(REF, 500, "CNY", then)
    assert (bank.totals["paid_amount"], bank.totals["conflicts"]) == (500, 1)
    _, shown = await bank.get(f"/payouts/{REF}")
    assert shown.get("payee") == (None if first is None else msgspec.to_builtins(first))


async def test_a_payee_of_another_shape_is_refused_by_the_simulator(bank: RunningBank) -> None:
    body = {"ref": REF, "amount": 1, "currency": "CNY"}
    for payee in ({"iban": "DE89370400440532013000"}, "DE89370400440532013000"):
        assert (await bank.post("/payouts", {**body, "payee": payee}))[0] == 400
    assert bank.totals["payouts"] == 0


def test_the_database_of_an_earlier_simulator_gets_the_column(tmp_path: Path) -> None:
    bank = Bank(tmp_path)
    bank.pay(PayoutBody("before", 5, "CNY"), "paid", 0)
    bank.close()
    earlier = sqlite3.connect(tmp_path / "simulator.db")
    earlier.execute("ALTER TABLE payouts DROP COLUMN payee")
    earlier.commit()
    earlier.close()
    for _ in range(2):
        bank = Bank(tmp_path)
        assert bank.pay(PayoutBody("before", 5, "CNY"), "paid", 0).payee is None
        kept = bank.pay(PayoutBody("after", 5, "CNY", IBAN), "paid", 0)
        assert msgspec.json.decode(kept.payee or "", type=BankAccount) == IBAN
        bank.close()
