"""The client of the account service against the running service."""

import re
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg.pgproto.pgproto
import msgspec
import pytest

from fundledger.client import AccountService, Refused, Voucher, credit, debit
from tests.support.running import RunningService

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "client.md"


@pytest.fixture
async def accounts(service: RunningService) -> AsyncIterator[AccountService]:
    async with AccountService(service.base_url, service.token) as accounts:
        yield accounts


def named() -> str:
    return f"c{uuid.uuid4().hex}"


async def opened(accounts: AccountService) -> tuple[str, str]:
    """Open an account of the type `bank` and an account of a merchant. Return their ids."""
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


def paid(bank: str, merchant: str, amount: int = 5, **members: Any) -> Voucher:
    return Voucher(uuid.uuid4(), "pay", [debit(bank, amount), credit(merchant, amount)], **members)


async def test_a_batch_is_posted_all_or_none_when_it_is_atomic(accounts: AccountService) -> None:
    bank, merchant = await opened(accounts)
    withdrawal = Voucher(uuid.uuid4(), "withdraw", [debit(merchant, 10), credit(bank, 10)])
    results = await accounts.post_vouchers([withdrawal, paid(bank, merchant)], atomic=True)
    assert [result.problem and result.problem.code for result in results] == ["insufficient-funds", "batch-aborted"]
    assert (await accounts.balance(merchant)).posted == 0


async def test_a_batch_longer_than_any_is_refused_when_it_is_atomic(accounts: AccountService) -> None:
    vouchers = [paid("a", "b")] * 5001
    with pytest.raises(Refused) as refused:
        await accounts.post_vouchers(vouchers, atomic=True)
    assert refused.value.problem.code == "malformed"


async def test_ids_as_the_database_driver_makes_them_are_posted(accounts: AccountService) -> None:
    bank, merchant = await opened(accounts)
    voucher = Voucher(asyncpg.pgproto.pgproto.UUID(str(uuid.uuid4())), "pay", [debit(bank, 5), credit(merchant, 5)])
    assert (await accounts.post_vouchers([voucher]))[0].status == "posted"


async def test_a_voucher_is_posted_once_and_read(accounts: AccountService) -> None:
    bank, merchant = await opened(accounts)
    voucher = paid(bank, merchant, reference="r/1", metadata={"a": [1, "ü"]})
    assert await accounts.voucher(voucher.id) is None
    posted = await accounts.post_voucher(voucher)
    assert (posted.id, posted.status, posted.replay) == (voucher.id, "posted", False)
    assert list(posted.entries) == voucher.entries
    assert (posted.reference, posted.metadata) == ("r/1", {"a": [1, "ü"]})
    assert posted.posted_at.tzinfo is not None
    again = await accounts.post_voucher(voucher)
    assert again.replay
    assert msgspec.structs.replace(again, replay=False) == posted
    record = await accounts.voucher(voucher.id)
    assert record is not None
    assert (record.posted_at, record.reversed_by, record.problem) == (posted.posted_at, None, None)


async def test_a_voucher_that_is_refused_is_raised_and_kept(accounts: AccountService) -> None:
    bank, merchant = await opened(accounts)
    voucher = Voucher(uuid.uuid4(), "withdraw", [debit(merchant, 10), credit(bank, 10)])
    for _ in range(2):
        with pytest.raises(Refused) as refused:
            await accounts.post_voucher(voucher)
        problem = refused.value.problem
        assert (problem.code, problem.status, problem.account) == ("insufficient-funds", 422, merchant)
        assert problem.members["type"] == "urn:fundledger:problem:insufficient-funds"
    record = await accounts.voucher(voucher.id)
    assert record is not None
    assert record.status == "refused"
    assert record.problem is not None
    shared = {name: value for name, value in problem.members.items() if name not in ("request_id", "documentation")}
    assert record.problem.members == shared


async def test_a_voucher_is_reversed_once(accounts: AccountService) -> None:
    bank, merchant = await opened(accounts)
    voucher = paid(bank, merchant)
    await accounts.post_voucher(voucher)
    new_id = uuid.uuid4()
    assert (await accounts.reverse_voucher(voucher.id, new_id)).reverses == voucher.id
    assert (await accounts.reverse_voucher(voucher.id, new_id)).replay
    record = await accounts.voucher(voucher.id)
    assert record is not None
    assert record.reversed_by == new_id
    with pytest.raises(Refused) as refused:
        await accounts.reverse_voucher(voucher.id, uuid.uuid4())
    assert refused.value.problem.code == "voucher-already-reversed"


async def test_accounts_balances_and_statements_are_read(accounts: AccountService) -> None:
    bank, merchant = await opened(accounts)
    before = datetime.now(UTC) - timedelta(hours=1)
    vouchers = [paid(bank, merchant, amount) for amount in range(1, 6)]
    await accounts.post_vouchers(vouchers)
    account = await accounts.account(merchant)
    assert account is not None
    assert (account.balance.posted, account.balance.available, account.currency) == (15, 15, "CNY")
    assert (await accounts.balance(merchant)).available == 15
    assert (await accounts.balance(merchant, before)).available == 0
    entries = [entry async for entry in accounts.entries(merchant, limit=2)]
    assert [(entry.voucher_id, entry.side, entry.amount) for entry in entries] == [
        (voucher.id, "credit", amount) for amount, voucher in enumerate(vouchers, 1)
    ]
    assert entries[-1].balance_after == 15
    assert [entry async for entry in accounts.entries(merchant, from_=before)] == entries
    assert [entry async for entry in accounts.entries(merchant, to=before)] == []


async def test_what_is_not_there_is_none_and_has_no_balance(accounts: AccountService) -> None:
    assert await accounts.account(named()) is None
    assert await accounts.voucher(uuid.uuid4()) is None
    assert await accounts.hold(named()) is None
    with pytest.raises(Refused) as refused:
        await accounts.balance(named())
    assert refused.value.problem.code == "not-found"
    with pytest.raises(Refused):
        await anext(accounts.entries(named()))


@pytest.mark.parametrize("id_", ["a/b", "a?b", "a b", "ä", "a%2Fb", "..", "a#b"])
async def test_an_id_of_any_characters_names_no_other_resource(accounts: AccountService, id_: str) -> None:
    with pytest.raises(Refused):
        await accounts.balance(id_)


async def test_a_time_without_zone_is_refused_here(accounts: AccountService) -> None:
    with pytest.raises(ValueError, match="zone"):
        await accounts.balance("a", datetime(2026, 1, 31))


async def test_an_account_is_frozen_thawed_buffered_and_closed(accounts: AccountService) -> None:
    _, merchant = await opened(accounts)
    assert (await accounts.freeze(merchant, "why")).status == "frozen"
    assert (await accounts.freeze(merchant, scope="all")).frozen_scope == "all"
    assert (await accounts.unfreeze(merchant)).status == "open"
    assert (await accounts.set_posting(merchant, "buffered")).posting == "buffered"
    assert (await accounts.close_account(merchant)).status == "closed"


async def test_a_hold_is_placed_captured_and_released(accounts: AccountService) -> None:
    bank, merchant = await opened(accounts)
    await accounts.post_voucher(paid(bank, merchant, 100))
    one, two = named(), named()
    hold = await accounts.place_hold(one, merchant, 60, datetime.now(UTC) + timedelta(hours=1))
    assert (hold.status, hold.amount, hold.replay) == ("open", 60, False)
    assert (await accounts.place_hold(one, merchant, 60, hold.expires_at)).replay
    assert (await accounts.balance(merchant)).available == 40
    voucher = Voucher(uuid.uuid4(), "withdraw", [debit(merchant, 50), credit(bank, 50)])
    assert (await accounts.capture_hold(one, voucher)).hold == one
    captured = await accounts.hold(one)
    assert captured is not None
    assert (captured.status, captured.captured, captured.voucher_id) == ("captured", 50, voucher.id)
    await accounts.place_hold(two, merchant, 50)
    assert (await accounts.release_hold(two, "why")).status == "released"
    assert (await accounts.release_hold(two)).replay
    with pytest.raises(Refused) as refused:
        await accounts.release_hold(one)
    assert refused.value.problem.code == "hold-captured"


async def test_a_service_that_runs_is_ready(accounts: AccountService) -> None:
    assert await accounts.is_ready()


async def test_the_example_of_the_page_does_what_it_says(service: RunningService) -> None:
    example = re.search(r"```python\n(.*?AccountService.*?)```", PAGE.read_text(), re.DOTALL)
    assert example is not None
    names: dict[str, Any] = {}
    exec(compile(example[1], str(PAGE), "exec"), names)
    await names["main"](service.base_url, service.token)
