"""Opening of accounts: an account is opened once, also by concurrent requests."""

import pytest

from fundledger.ledger.store.accounts import NewAccount, open_accounts
from tests.support.ledger import (
    Ledger,
    together,
)


async def test_an_account_is_opened_once_and_the_same_request_finds_it(ledger: Ledger) -> None:
    first = await ledger.open("m:1", owner="o", metadata='{"a":1}')
    again = await ledger.open("m:1", owner="o", metadata='{"a":1}')
    assert (first.created, first.same) == (True, True)
    assert (again.created, again.same) == (False, True)
    assert again.view == first.view


@pytest.mark.parametrize(
    "other",
    [{"owner": "p"}, {"type_": "merchant_pending"}, {"currency": "USD"}, {"metadata": '{"a":2}'}, {"metadata": None}],
)
async def test_an_account_that_exists_and_differs_is_reported_and_not_changed(ledger: Ledger, other: dict) -> None:
    asked = {"id_": "m:1", "type_": "merchant_available", "owner": "o", "currency": "CNY", "metadata": '{"a":1}'}
    first = await ledger.open(**asked)
    before = await ledger.state()
    again = await ledger.open(**{**asked, **other})
    assert (again.created, again.same) == (False, False)
    assert again.view == first.view
    assert await ledger.state() == before


async def test_an_account_that_several_workers_open_concurrently_is_opened_by_one(ledger: Ledger) -> None:
    workers = [await ledger.worker(i) for i in range(6)]
    for i in range(5):
        opened = await together(*(w.open(f"m:{i}", owner="o") for w in workers))
        assert sorted(o.created for o in opened) == [False] * 5 + [True]
        assert all(o.same for o in opened)
        assert len({o.view.account.number for o in opened}) == 1
    await ledger.prove()


async def test_accounts_opened_in_opposite_orders_do_not_deadlock(ledger: Ledger, postgres) -> None:
    workers = [await ledger.worker(i) for i in range(4)]
    requests = [NewAccount(f"m:{i}", "dev", "o", "merchant_available", "CNY") for i in range(50)]
    logged = len(postgres.log.read_bytes())

    async def opening(worker: Ledger, order: list[NewAccount]) -> list:
        return await open_accounts(worker.connection, worker.directory, worker.keys, worker.layout, order)

    answers = await together(*(opening(w, requests if i % 2 else requests[::-1]) for i, w in enumerate(workers)))
    assert sum(o.created for opened in answers for o in opened) == 50
    assert b"deadlock" not in postgres.log.read_bytes()[logged:]
    await ledger.prove()


async def test_of_two_requests_with_one_id_the_first_opens_it(ledger: Ledger) -> None:
    requests = [NewAccount("m:1", "dev", owner, "merchant_available", "CNY") for owner in ("o", "p", "o")]
    opened = await open_accounts(ledger.connection, ledger.directory, ledger.keys, ledger.layout, requests)
    assert [(o.created, o.same) for o in opened] == [(True, True), (False, False), (False, True)]
