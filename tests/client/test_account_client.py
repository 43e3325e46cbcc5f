"""The client of the account service against the one that really runs."""

import uuid
from collections.abc import AsyncIterator

import pytest

from fundledger.client import AccountService, Refused, Voucher, credit, debit
from tests.support.running import RunningService


@pytest.fixture
async def accounts(service: RunningService) -> AsyncIterator[AccountService]:
    async with AccountService(service.base_url, service.token) as accounts:
        yield accounts


def named() -> str:
    return f"c{uuid.uuid4().hex}"


async def opened(accounts: AccountService) -> tuple[str, str]:
    """A bank account and one of a merchant."""
    name = named()
    bank, merchant = f"bank:{name}", f"merchant:{name}:available"
    await accounts.open_account(bank, "platform", "bank", "CNY")
    await accounts.open_account(merchant, f"merchant:{name}", "merchant_available", "CNY")
    return bank, merchant


async def test_an_account_is_opened_once_and_a_different_one_of_its_id_is_refused(accounts: AccountService) -> None:
    name = named()
    account = await accounts.open_account(name, "o", "merchant_available", "CNY", {"a": 1})
    assert (account.id, account.metadata, account.balance.available, account.status) == (name, {"a": 1}, 0, "open")
    assert await accounts.open_account(name, "o", "merchant_available", "CNY", {"a": 1}) == account
    with pytest.raises(Refused) as refused:
        await accounts.open_account(name, "another", "merchant_available", "CNY")
    assert (refused.value.problem.code, refused.value.problem.status) == ("account-exists", 409)


async def test_a_batch_is_answered_voucher_by_voucher(accounts: AccountService) -> None:
    bank, merchant = await opened(accounts)
    pays = [Voucher(uuid.uuid4(), "pay", [debit(bank, 5), credit(merchant, 5)]) for _ in range(3)]
    too_much = Voucher(uuid.uuid4(), "withdraw", [debit(merchant, 10**6), credit(bank, 10**6)])
    results = await accounts.post_vouchers([*pays, too_much])
    assert [result.id for result in results] == [*[pay.id for pay in pays], too_much.id]
    assert [result.status for result in results] == ["posted", "posted", "posted", "refused"]
    assert results[3].problem is not None
    assert results[3].problem.code == "insufficient-funds"
    assert [result.replay for result in await accounts.post_vouchers(pays)] == [True] * 3
    assert await accounts.post_vouchers([]) == []
