"""Accounts with several slots: split and merged while payments arrive, and spent to the last cent but never beyond."""

import pytest

from fundledger.ledger.model.account import Account, Status
from fundledger.ledger.model.batch import Outcome, Rebalance, Resplit
from fundledger.ledger.model.hold import EndHold, PlaceHold
from fundledger.ledger.statement.pages import read_statement
from fundledger.ledger.store.slot_map import follow, read_routes
from fundledger.reconciliation.checks import verify
from tests.support.halfway import Halfway, overtaken
from tests.support.ledger import Ledger, capture, code, codes, new_id, posted, reversal, together, transfer, voucher
from tests.support.length import unless_long

ROUNDS = unless_long(25, 2000)


async def resplit(ledger: Ledger, account: Account, slots: int) -> Account:
    """Split or merge an account, and let this worker apply the slot map. Return the account as cached then."""
    outcome = await ledger.post_one(Resplit(account, slots, "a test", "tests"))
    assert outcome.refusal is None, outcome
    return await followed(ledger, account)


async def followed(ledger: Ledger, account: Account) -> Account:
    await follow(ledger.connection, ledger.directory, {}, await read_routes(ledger.connection))
    found = ledger.directory.get(account.id)
    assert found is not None
    return found


async def rows(ledger: Ledger, account: Account) -> list[tuple[int, int, int]]:
    """Return `(posted, held, status)` of each slot."""
    got = await ledger.connection.fetch(
        "SELECT posted, held, CASE WHEN suspect THEN 4 ELSE status END FROM ledger.sub_accounts WHERE account_number = $1 ORDER BY slot",
        account.number,
    )
    return [tuple(row) for row in got]


async def spread_out(ledger: Ledger, *amounts: int) -> tuple[Account, Account]:
    """Open a merchant's account with these amounts on its slots. Return it, and the bank account that paid them."""
    bank = await ledger.account("bank", "bank")
    merchant = await resplit(ledger, await ledger.account("m"), len(amounts))
    for slot, amount in enumerate(amounts):
        if amount:
            worker = await ledger.worker(slot)
            worker.directory.remember(merchant)
            assert posted(await worker.post_one(transfer(bank, merchant, amount)))
    assert [posted for posted, _, _ in await rows(ledger, merchant)] == list(amounts)
    return merchant, bank


async def test_a_split_account_takes_money_on_the_slot_of_each_worker(ledger: Ledger) -> None:
    merchant, _ = await spread_out(ledger, 5, 7, 0, 9)
    view = await ledger.view(merchant)
    assert (view.posted, view.sub_accounts) == (21, 4)
    assert (await ledger.prove()).ok


async def test_a_debit_that_its_slot_covers_touches_no_other(ledger: Ledger) -> None:
    merchant, bank = await spread_out(ledger, 5, 7)
    assert posted(await ledger.post_one(transfer(merchant, bank, 5)))
    assert await rows(ledger, merchant) == [(0, 0, 0), (7, 0, 0)]
    assert (await ledger.prove()).ok


@pytest.mark.parametrize("amount", [6, 11, 21])
async def test_a_debit_takes_what_its_slot_lacks_from_the_others(ledger: Ledger, amount: int) -> None:
    merchant, bank = await spread_out(ledger, 5, 7, 0, 9)
    assert posted(await ledger.post_one(transfer(merchant, bank, amount)))
    assert await ledger.posted(merchant) == 21 - amount
    assert min(posted for posted, _, _ in await rows(ledger, merchant)) >= 0
    assert (await ledger.prove()).ok


async def test_a_debit_beyond_all_slots_is_refused_and_writes_no_entry(ledger: Ledger) -> None:
    merchant, bank = await spread_out(ledger, 5, 7, 0, 9)
    entries = await ledger.count("entries")
    assert code(await ledger.post_one(transfer(merchant, bank, 22))) == "insufficient-funds"
    assert await ledger.count("entries") == entries
    assert posted(await ledger.post_one(transfer(merchant, bank, 21)))
    assert (await ledger.prove()).ok


async def test_a_worker_that_does_not_know_of_the_split_refuses_no_voucher(ledger: Ledger) -> None:
    bank = await ledger.account("bank", "bank")
    merchant = await ledger.account("m")
    stale = await ledger.worker(1)
    stale.directory.remember(merchant)
    fresh = await ledger.worker(2)
    for _ in range(3):
        assert posted(await stale.post_one(transfer(bank, merchant, 1)))
    fresh.directory.remember(await resplit(ledger, merchant, 4))
    now = fresh.directory.get("m")
    assert now is not None
    assert posted(await fresh.post_one(transfer(bank, now, 100)))
    assert codes(await stale.post(transfer(merchant, bank, 50), transfer(merchant, bank, 54))) == [
        "posted",
        "insufficient-funds",
    ]
    assert posted(await stale.post_one(transfer(merchant, bank, 53)))
    assert (await ledger.prove()).ok


async def test_a_worker_that_does_not_know_of_the_merge_posts_to_the_first_slot(ledger: Ledger) -> None:
    merchant, bank = await spread_out(ledger, 5, 7, 0, 9)
    stale = await ledger.worker(3)
    for _ in range(3):
        assert posted(await stale.post_one(transfer(bank, merchant, 1)))
    assert (await resplit(ledger, merchant, 1)).slots == 1
    assert await rows(ledger, merchant) == [(24, 0, 0), (0, 0, 5), (0, 0, 5), (0, 0, 5)]
    for _ in range(3):
        assert posted(await stale.post_one(transfer(bank, merchant, 1)))
    assert posted(await stale.post_one(transfer(merchant, bank, 27)))
    assert [posted for posted, _, _ in await rows(ledger, merchant)] == [0, 0, 0, 0]
    view = await ledger.view(merchant)
    assert (view.sub_accounts, view.status) == (1, Status.OPEN)
    assert (await ledger.prove()).ok


async def test_an_account_is_split_again_on_the_slots_that_it_had(ledger: Ledger) -> None:
    merchant, bank = await spread_out(ledger, 5, 7, 0, 9)
    for slots in (1, 3, 2, 6, 1, 4):
        merchant = await resplit(ledger, merchant, slots)
        for ordinal in range(4):
            worker = await ledger.worker(ordinal)
            assert posted(await worker.post_one(transfer(bank, merchant, 1)))
        open_ = [status == Status.OPEN for _, _, status in await rows(ledger, merchant)]
        assert open_ == [slot < slots for slot in range(len(open_))]
    assert len(await rows(ledger, merchant)) == 6
    assert await ledger.posted(merchant) == 21 + 24
    events = await ledger.connection.fetch("SELECT slots, reason, module FROM ledger.route_events ORDER BY id")
    assert [tuple(e) for e in events] == [(n, "a test", "tests") for n in (4, 1, 3, 2, 6, 1, 4)]
    assert (await ledger.prove()).ok


async def test_splitting_to_what_is_so_writes_nothing_but_the_event(ledger: Ledger) -> None:
    merchant, _ = await spread_out(ledger, 5, 7)
    before = await ledger.state()
    outcome = await ledger.post_one(Resplit(merchant, 2, "a test", "tests"))
    assert outcome.replay
    assert await ledger.state() == before


@pytest.mark.parametrize("status", [Status.FROZEN_DEBITS, Status.FROZEN_ALL])
async def test_a_frozen_account_is_frozen_on_every_slot_and_is_not_split(ledger: Ledger, status: Status) -> None:
    merchant, bank = await spread_out(ledger, 5, 7)
    await ledger.freeze(merchant, status)
    assert {s for _, _, s in await rows(ledger, merchant)} == {status}
    for ordinal in range(3):
        assert code(await (await ledger.worker(ordinal)).post_one(transfer(merchant, bank, 1))) == "account-frozen"
    assert code(await ledger.post_one(Resplit(merchant, 4, "a test", "tests"))) == "account-frozen"
    assert code(await ledger.post_one(Rebalance(merchant))) == "account-frozen"


async def test_a_freeze_by_a_worker_that_does_not_know_of_the_split_freezes_every_slot(ledger: Ledger) -> None:
    merchant = await ledger.account("m")
    stale = await ledger.worker(1)
    await resplit(ledger, merchant, 3)
    await stale.freeze(merchant)
    assert [s for _, _, s in await rows(ledger, merchant)] == [Status.FROZEN_ALL] * 3


async def test_a_merged_slot_stays_merged_when_the_account_is_frozen_and_open_again(ledger: Ledger) -> None:
    merchant, _ = await spread_out(ledger, 5, 7)
    merchant = await resplit(ledger, merchant, 1)
    await ledger.freeze(merchant)
    await ledger.freeze(merchant, Status.OPEN)
    assert [s for _, _, s in await rows(ledger, merchant)] == [Status.OPEN, Status.MERGED]


async def test_an_account_is_closed_only_when_every_slot_is_empty(ledger: Ledger) -> None:
    merchant, bank = await spread_out(ledger, 0, 7)
    assert code(await ledger.freeze(merchant, Status.CLOSED)) == "account-not-empty"
    assert posted(await ledger.post_one(transfer(merchant, bank, 7)))
    assert code(await ledger.freeze(merchant, Status.CLOSED)) == "posted"


# --- Holds -------------------------------------------------------------------------------------------------------------


async def test_a_hold_gathers_on_its_slot_what_it_needs(ledger: Ledger) -> None:
    merchant, bank = await spread_out(ledger, 5, 7, 9)
    hold = await ledger.hold("h", merchant, 20)
    view = await ledger.view(merchant)
    assert (view.posted, view.held) == (21, 20)
    assert code(await ledger.post_one(PlaceHold("h2", merchant, 2, 0, "dev"))) == "insufficient-funds"
    assert code(await ledger.post_one(transfer(merchant, bank, 2))) == "insufficient-funds"
    other = await ledger.worker(2)
    assert posted(await other.post_one(capture(hold, bank, 20)))
    assert await ledger.posted(merchant) == 1
    assert posted(await ledger.post_one(transfer(merchant, bank, 1)))
    assert (await ledger.prove()).ok


async def test_a_slot_with_a_hold_is_merged_when_the_hold_has_ended(ledger: Ledger) -> None:
    merchant, bank = await spread_out(ledger, 5, 7)
    other = await ledger.worker(1)
    hold = await other.hold("h", merchant, 6)
    merchant = await resplit(ledger, merchant, 1)
    assert await rows(ledger, merchant) == [(6, 0, 0), (6, 6, 0)]
    assert posted(await ledger.post_one(capture(hold, bank, 4)))
    assert await rows(ledger, merchant) == [(6, 0, 0), (2, 0, 0)]
    await resplit(ledger, merchant, 1)
    assert await rows(ledger, merchant) == [(8, 0, 0), (0, 0, 5)]
    assert (await ledger.prove()).ok


async def test_a_hold_on_a_slot_is_released_after_a_merge(ledger: Ledger) -> None:
    merchant, _ = await spread_out(ledger, 5, 7)
    hold = await (await ledger.worker(1)).hold("h", merchant, 6)
    merchant = await resplit(ledger, merchant, 1)
    assert code(await ledger.post_one(EndHold(hold.id, merchant, hold.slot, "dev"))) == "posted"
    assert await ledger.posted(merchant) == 12
    assert (await ledger.prove()).ok


# --- Vouchers of several lines, reversals --------------------------------------------------------------------------------


async def test_lines_on_one_account_count_together(ledger: Ledger) -> None:
    merchant, bank = await spread_out(ledger, 5, 7)
    fees = await ledger.account("fees", "fee_income")
    many = voucher((merchant, -8), (bank, 6), (merchant, -3), (fees, 5))
    assert posted(await ledger.post_one(many))
    assert await ledger.posted(merchant) == 1
    back = voucher((merchant, -6), (merchant, 5), (bank, 1))
    assert posted(await ledger.post_one(back))
    assert await ledger.posted(merchant) == 0
    assert (await ledger.prove()).ok


async def test_a_reversal_takes_from_every_slot(ledger: Ledger) -> None:
    merchant, bank = await spread_out(ledger, 0, 7)
    payment = transfer(bank, merchant, 10)
    assert posted(await ledger.post_one(payment))
    assert posted(await ledger.post_one(transfer(merchant, bank, 6)))
    assert posted(await ledger.post_one(reversal(payment)))
    assert await ledger.posted(merchant) == 1
    assert (await ledger.prove()).ok


# --- Rebalancing -----------------------------------------------------------------------------------------------------------


async def test_rebalancing_levels_the_slots_by_a_voucher(ledger: Ledger) -> None:
    merchant, _ = await spread_out(ledger, 20000, 0, 600, 10600)
    outcome = await ledger.post_one(Rebalance(merchant))
    assert [posted for posted, _, _ in await rows(ledger, merchant)] == [7800, 7800, 7800, 7800]
    assert outcome.record is not None and outcome.record.type == "rebalance"
    assert await ledger.record(outcome.record.id, "ledger") is not None
    before = await ledger.state()
    assert (await ledger.post_one(Rebalance(merchant))).record is None
    assert await ledger.state() == before
    assert (await ledger.prove()).ok


async def test_rebalancing_leaves_what_is_held_where_it_is(ledger: Ledger) -> None:
    merchant, _ = await spread_out(ledger, 10, 1, 2)
    await ledger.hold("h", merchant, 9)
    await ledger.post_one(Rebalance(merchant))
    assert [p - h for p, h, _ in await rows(ledger, merchant)] == [2, 1, 1]
    assert (await ledger.prove()).ok


# --- Races -----------------------------------------------------------------------------------------------------------------


async def test_concurrent_debits_that_exceed_the_balance_together_succeed_exactly_as_far_as_it_goes(
    ledger: Ledger,
) -> None:
    merchant, bank = await spread_out(ledger, 0, 0, 0, 0)
    workers = [await ledger.worker(ordinal) for ordinal in range(4)]
    for round_ in range(ROUNDS):
        for ordinal, worker in enumerate(workers):
            assert posted(await worker.post_one(transfer(bank, merchant, 3 + ordinal)))
        asked = [worker.post(*[transfer(merchant, bank, 2) for _ in range(3)]) for worker in workers]
        told = [code for outcomes in await together(*asked) for code in codes(outcomes)]
        assert sorted(set(told)) == ["insufficient-funds", "posted"], round_
        assert told.count("posted") == 9, (round_, told)
        assert await ledger.posted(merchant) == 0
    assert (await ledger.prove()).ok


async def test_a_split_while_a_debit_waits_is_seen_by_it(ledger: Ledger) -> None:
    """The debit planned to lock one slot. While it waited for the lock, the account was split over three slots."""
    bank = await ledger.account("bank", "bank")
    merchant = await ledger.account("m", balance=10)
    other = await ledger.worker(1)
    async with overtaken(ledger, Resplit(merchant, 3, "a test", "tests"), other, transfer(merchant, bank, 10)) as done:
        assert codes(done) == ["posted", "posted"]
    assert (await ledger.prove()).ok


async def test_a_merge_while_a_credit_waits_takes_it_to_the_first_slot(ledger: Ledger) -> None:
    merchant, bank = await spread_out(ledger, 5, 7)
    other = await ledger.worker(1)
    other.lock_always()
    async with overtaken(ledger, Resplit(merchant, 1, "a test", "tests"), other, transfer(bank, merchant, 1)) as done:
        assert codes(done) == ["posted", "posted"]
    assert await rows(ledger, merchant) == [(13, 0, 0), (0, 0, 5)]
    assert (await ledger.prove()).ok


async def test_concurrent_splits_merges_and_payments_neither_refuse_nor_lose(ledger: Ledger) -> None:
    merchant, bank = await spread_out(ledger, 1000, 0)
    workers = [await ledger.worker(ordinal) for ordinal in range(4)]

    async def pay(worker: Ledger) -> int:
        for _ in range(40):
            mine = worker.directory.get("m") or merchant
            assert codes(await worker.post(transfer(bank, mine, 2), transfer(mine, bank, 1))) == ["posted", "posted"]
            await followed(worker, merchant)
        return 40

    async def resize() -> int:
        for slots in (4, 1, 3, 2, 4, 1, 2, 4) * 3:
            assert (await ledger.post_one(Resplit(merchant, slots, "a test", "tests"))).refusal is None
            assert (await ledger.post_one(Rebalance(merchant))).refusal is None
        return 0

    paid = sum(await together(*[pay(worker) for worker in workers], resize()))
    assert await ledger.posted(merchant) == 1000 + paid
    assert (await ledger.prove()).ok


# --- The statement ---------------------------------------------------------------------------------------------------------


async def test_a_statement_goes_on_through_split_and_merge(ledger: Ledger) -> None:
    merchant, bank = await spread_out(ledger, 5, 7)
    page, cursor = await read_statement(
        ledger.connection, ledger.directory, merchant, ledger.layout, 1, None, None, None
    )
    assert cursor is not None
    merchant = await resplit(ledger, merchant, 4)
    assert posted(await (await ledger.worker(3)).post_one(transfer(bank, merchant, 9)))
    merchant = await resplit(ledger, merchant, 1)
    while cursor is not None:
        more, cursor = await read_statement(
            ledger.connection, ledger.directory, merchant, ledger.layout, 2, cursor, None, None
        )
        page += more
    whole, _ = await read_statement(
        ledger.connection, ledger.directory, merchant, ledger.layout, 1000, None, None, None
    )
    assert page == whole
    assert whole[-1].balance_after == 21
    assert [(e.seq, e.amount) for e in whole] == [(1, 5), (2, 7), (3, 9)], "moves between slots are no lines"


# --- Tampering -------------------------------------------------------------------------------------------------------------


async def test_nothing_is_taken_from_a_slot_that_does_not_verify(ledger: Ledger) -> None:
    merchant, bank = await spread_out(ledger, 5, 7)
    edit = "UPDATE ledger.sub_accounts SET posted = 1000 WHERE account_number = $1 AND slot = 1"
    await ledger.tamper(edit, merchant.number)
    assert code(await ledger.post_one(transfer(merchant, bank, 500))) == "account-frozen"
    assert await rows(ledger, merchant) == [(5, 0, Status.FROZEN_INTEGRITY), (1000, 0, Status.FROZEN_INTEGRITY)]


async def test_nothing_is_held_on_a_slot_that_does_not_verify(ledger: Ledger) -> None:
    merchant, _ = await spread_out(ledger, 5, 7)
    edit = "UPDATE ledger.sub_accounts SET posted = 1000 WHERE account_number = $1 AND slot = 1"
    await ledger.tamper(edit, merchant.number)
    assert code(await ledger.post_one(PlaceHold("h", merchant, 500, 0, "dev"))) == "account-frozen"
    assert [held for _, held, _ in await rows(ledger, merchant)] == [0, 0]


@pytest.mark.parametrize("slots", [1, 200])
async def test_an_account_whose_first_slot_does_not_verify_is_frozen_on_every_slot(ledger: Ledger, slots: int) -> None:
    merchant, bank = await spread_out(ledger, 5, 7)
    edit = "UPDATE ledger.sub_accounts SET slots = $2 WHERE account_number = $1 AND slot = 0"
    await ledger.tamper(edit, merchant.number, slots)
    stale = await ledger.worker(1)
    for _ in range(2):
        assert code(await stale.post_one(transfer(merchant, bank, 12))) == "account-frozen"
    assert [status for _, _, status in await rows(ledger, merchant)] == [Status.FROZEN_INTEGRITY] * 2


async def test_slots_that_are_hidden_by_an_edit_are_noticed(ledger: Ledger) -> None:
    merchant, bank = await spread_out(ledger, 5, 7)
    await ledger.tamper(
        "UPDATE ledger.sub_accounts SET slots = 1 WHERE account_number = $1 AND slot = 0", merchant.number
    )
    assert code(await ledger.post_one(transfer(merchant, bank, 6))) == "account-frozen"
    report = await verify(ledger.dsn, ledger.keys)
    assert {check.name for check in report.checks if not check.ok} == {
        "integrity_findings",
        "routes_equal_events",
        "sub_accounts_complete",
        "mac_verifies_sub_accounts",
    }


async def test_a_slot_map_that_was_edited_costs_no_account_anything(ledger: Ledger) -> None:
    merchant, bank = await spread_out(ledger, 5, 7)
    await ledger.tamper("UPDATE ledger.routes SET slots = 200, epoch = 99 WHERE account_number = $1", merchant.number)
    worker = await ledger.worker(150)
    lost = await followed(worker, merchant)
    assert posted(await worker.post_one(transfer(bank, lost, 1)))
    assert posted(await worker.post_one(transfer(lost, bank, 13)))
    report = await verify(ledger.dsn, ledger.keys)
    assert [check.name for check in report.checks if not check.ok] == ["routes_equal_events"]
    await ledger.tamper("UPDATE ledger.routes SET slots = 2 WHERE account_number = $1", merchant.number)
    assert (await ledger.prove()).ok


async def test_halfway_through_a_split_others_see_the_account_as_it_was(ledger: Ledger) -> None:
    merchant, _ = await spread_out(ledger, 5, 7)
    halfway = Halfway(ledger)
    outcomes: list[Outcome] = await halfway.write(Resplit(merchant, 4, "a test", "tests"))
    assert outcomes[0].refusal is None
    assert (await (await ledger.worker(1)).view(merchant)).sub_accounts == 2
    await halfway.rollback()
    assert (await ledger.view(merchant)).sub_accounts == 2
    assert posted(await ledger.post_one(transfer(merchant, await ledger.account("b2", "bank"), 12, id_=new_id())))
    assert (await ledger.prove()).ok
