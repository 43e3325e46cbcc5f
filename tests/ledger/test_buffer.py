"""Buffered credits: they are pending immediately, can be spent, are drained once, and are never lost."""

from datetime import date, timedelta

import pytest

from fundledger.hotspot.rebalancer import SQL as FOLDER_SQL
from fundledger.ledger.model.account import Account, Status
from fundledger.ledger.model.batch import AtomicGroup, Drain, Outcome, Resplit, SetPolicy, SetStatus
from fundledger.ledger.model.hold import PlaceHold
from fundledger.ledger.rules.buffer import AMOUNT_MAX
from fundledger.ledger.statement.pages import read_statement
from fundledger.ledger.store.slot_map import follow, read_routes
from fundledger.reconciliation.checks import verify
from tests.support.halfway import Halfway, is_waiting_for_a_lock, overtaken
from tests.support.ledger import Ledger, code, codes, posted, reversal, together, transfer, voucher
from tests.support.length import unless_long
from tests.support.waiting import eventually

ROUNDS = unless_long(25, 2000)


async def scene(ledger: Ledger) -> tuple[Account, Account]:
    """Open a merchant's account with buffered credits, and the account of the bank that pays."""
    return await ledger.account("m", buffered=True), await ledger.account("bank", "bank")


async def held_up(ledger: Ledger, account: Account) -> tuple[int, int, int]:
    """Return `(posted, held, pending)`."""
    view = await ledger.view(account)
    return view.posted, view.held, view.pending


async def policy(ledger: Ledger, account: Account, *, buffered: bool) -> Outcome:
    return await ledger.post_one(SetPolicy(account, buffered, "a test", "tests"))


async def shown(ledger: Ledger, account: Account) -> list[tuple[object, int, int]]:
    page, _ = await read_statement(ledger.connection, ledger.directory, account, ledger.layout, 1000, None, None, None)
    return [(e.voucher_id, e.amount if e.side == "credit" else -e.amount, e.balance_after) for e in page]


async def test_a_credit_is_pending_immediately_and_posted_when_it_is_drained(ledger: Ledger) -> None:
    m, bank = await scene(ledger)
    vouchers = [transfer(bank, m, amount) for amount in (10, 20, 30)]
    assert codes(await ledger.post(*vouchers[:2])) == ["posted"] * 2
    assert posted(await ledger.post_one(vouchers[2]))
    assert await held_up(ledger, m) == (0, 0, 60)
    assert await shown(ledger, m) == []
    assert (await ledger.prove()).trial_balance == {"CNY": 0}
    outcome = await ledger.post_one(Drain(m))
    assert len(outcome.drained or ()) == 3
    assert await held_up(ledger, m) == (60, 0, 0)
    assert await shown(ledger, m) == [
        (v.id, a, b) for v, a, b in zip(vouchers, (10, 20, 30), (10, 30, 60), strict=True)
    ]
    assert await ledger.count("buffered_entries") == 0
    assert (await ledger.post_one(Drain(m))).drained == []
    assert (await ledger.prove()).ok


async def test_a_credit_does_not_wait_for_a_lock_on_the_balance(ledger: Ledger) -> None:
    m, bank = await scene(ledger)
    async with ledger.connection.transaction():
        await ledger.connection.execute(
            "SELECT FROM ledger.sub_accounts WHERE account_number = $1 FOR NO KEY UPDATE", m.number
        )
        assert posted(await ledger.post_one(transfer(bank, m, 10)))
    assert await held_up(ledger, m) == (0, 0, 10)
    await ledger.prove()


async def test_a_replay_returns_the_recorded_outcome_and_moves_nothing(ledger: Ledger) -> None:
    m, bank = await scene(ledger)
    payment = transfer(bank, m, 10)
    assert posted(await ledger.post_one(payment))
    for _ in range(2):
        again = await ledger.post_one(payment)
        assert posted(again)
        assert again.replay
        await ledger.post_one(Drain(m))
    assert await held_up(ledger, m) == (10, 0, 0)
    await ledger.prove()


async def test_a_debit_drains_what_it_needs_inside_its_own_transaction(ledger: Ledger) -> None:
    m, bank = await scene(ledger)
    await ledger.post(transfer(bank, m, 10), transfer(bank, m, 5))
    assert posted(await ledger.post_one(transfer(m, bank, 12)))
    assert await held_up(ledger, m) == (3, 0, 0)
    await ledger.post(transfer(bank, m, 4))
    assert code(await ledger.post_one(transfer(m, bank, 8))) == "insufficient-funds"
    assert posted(await ledger.post_one(transfer(m, bank, 7)))
    assert await held_up(ledger, m) == (0, 0, 0)
    await ledger.prove()


async def test_a_debit_that_is_covered_leaves_the_buffer_alone(ledger: Ledger) -> None:
    m, bank = await scene(ledger)
    await ledger.post(transfer(bank, m, 10))
    await ledger.post_one(Drain(m))
    await ledger.post(transfer(bank, m, 10))
    assert posted(await ledger.post_one(transfer(m, bank, 4)))
    assert await held_up(ledger, m) == (6, 0, 10)
    await ledger.prove()


async def test_a_hold_and_a_reversal_may_spend_what_waits(ledger: Ledger) -> None:
    m, bank = await scene(ledger)
    payment = transfer(bank, m, 10)
    await ledger.post(payment, transfer(bank, m, 5))
    assert (await ledger.post_one(PlaceHold("h", m, 5, 0, "dev"))).refusal is None
    assert await held_up(ledger, m) == (15, 5, 0)
    assert posted(await ledger.post_one(reversal(payment)))
    assert code(await ledger.post_one(PlaceHold("h2", m, 1, 0, "dev"))) == "insufficient-funds"
    await ledger.prove()


async def test_a_debit_over_slots_drains_too(ledger: Ledger) -> None:
    m, bank = await scene(ledger)
    assert (await ledger.post_one(Resplit(m, 3, "a test", "tests"))).refusal is None
    await ledger.post(transfer(bank, m, 10))
    other = await ledger.worker(1)
    split = (await other.directory.by_number(other.connection, [m.number]))[m.number]
    assert split.slots == 3
    assert posted(await other.post_one(transfer(split, bank, 10)))
    assert await held_up(ledger, m) == (0, 0, 0)
    await ledger.prove()


async def test_an_account_that_is_debited_in_the_same_batch_is_posted_directly(ledger: Ledger) -> None:
    m, bank = await scene(ledger)
    outcomes = await ledger.post(transfer(bank, m, 10), transfer(m, bank, 4), transfer(bank, m, 1))
    assert codes(outcomes) == ["posted"] * 3
    assert await held_up(ledger, m) == (7, 0, 0)
    await ledger.prove()


async def test_what_is_very_large_is_posted_directly(ledger: Ledger) -> None:
    m, bank = await scene(ledger)
    await ledger.post_one(transfer(bank, m, AMOUNT_MAX + 1))
    await ledger.post_one(transfer(bank, m, AMOUNT_MAX))
    assert await held_up(ledger, m) == (AMOUNT_MAX + 1, 0, AMOUNT_MAX)
    await ledger.prove()


async def test_when_too_much_waits_credits_are_posted_directly(ledger: Ledger) -> None:
    m, bank = await scene(ledger)
    ledger.books.buffering = False
    await ledger.post_one(transfer(bank, m, 1))
    ledger.books.buffering = True
    await ledger.post_one(transfer(bank, m, 2))
    assert await held_up(ledger, m) == (1, 0, 2)
    await ledger.prove()


async def test_a_group_that_is_refused_leaves_nothing_in_the_buffer(ledger: Ledger) -> None:
    m, bank = await scene(ledger)
    poor = await ledger.account("poor")
    outcome = (await ledger.post(AtomicGroup([transfer(bank, m, 10), transfer(poor, m, 1)]), transfer(bank, m, 3)))[0]
    assert isinstance(outcome, Outcome)
    assert codes(outcome.parts or ()) == ["batch-aborted", "insufficient-funds"]
    assert await held_up(ledger, m) == (0, 0, 3)
    await ledger.prove()


async def test_two_lines_of_a_voucher_on_one_account_both_wait(ledger: Ledger) -> None:
    m, bank = await scene(ledger)
    await ledger.post_one(voucher((bank, -10), (m, 3), (m, 7)))
    assert await held_up(ledger, m) == (0, 0, 10)
    await ledger.prove()
    await ledger.post_one(Drain(m))
    assert [amount for _, amount, _ in await shown(ledger, m)] == [3, 7]
    await ledger.prove()


async def test_a_drain_keeps_the_accounting_date_on_which_money_was_accepted(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    m, bank = await scene(ledger)
    today = date(2026, 11, 23)
    days = iter([today, today + timedelta(days=1)])
    for amount in (10, 20):
        day = next(days)
        monkeypatch.setattr(type(ledger.books.calendar), "date_of", lambda self, us, day=day: day)
        await ledger.post_one(transfer(bank, m, amount))
    await ledger.post_one(Drain(m))
    rows = await ledger.connection.fetch(
        "SELECT amount, accounting_date FROM ledger.entries WHERE account_number = $1 ORDER BY seq", m.number
    )
    assert [tuple(row) for row in rows] == [(10, today), (20, today + timedelta(days=1))]
    await ledger.prove()


async def test_a_frozen_account_has_nothing_waiting_and_takes_nothing(ledger: Ledger) -> None:
    m, bank = await scene(ledger)
    other = await ledger.worker(1)
    for worker in (ledger, other):
        assert posted(await worker.post_one(transfer(bank, m, 5)))
    await ledger.freeze(m)
    assert await held_up(ledger, m) == (10, 0, 0)
    for worker in (ledger, other):
        assert code(await worker.post_one(transfer(bank, m, 5))) == "account-frozen"
    await ledger.freeze(m, Status.FROZEN_DEBITS)
    assert posted(await other.post_one(transfer(bank, m, 5)))
    await ledger.freeze(m, Status.OPEN)
    assert posted(await other.post_one(transfer(bank, m, 5)))
    assert await held_up(ledger, m) == (15, 0, 5)
    await ledger.prove()


async def test_an_account_with_money_waiting_is_not_closed(ledger: Ledger) -> None:
    m, bank = await scene(ledger)
    await ledger.post_one(transfer(bank, m, 5))
    assert code(await ledger.freeze(m, Status.CLOSED)) == "account-not-empty"
    assert posted(await ledger.post_one(transfer(m, bank, 5)))
    assert (await ledger.freeze(m, Status.CLOSED)).refusal is None
    assert code(await ledger.post_one(transfer(bank, m, 5))) == "account-closed"
    assert code(await policy(ledger, m, buffered=False)) == "account-closed"
    await ledger.prove()


@pytest.mark.parametrize("status", [Status.FROZEN_ALL, Status.CLOSED])
async def test_a_freeze_waits_for_a_credit_that_is_being_buffered_and_sees_it(ledger: Ledger, status: Status) -> None:
    m, bank = await scene(ledger)
    halfway = Halfway(await ledger.worker(1))
    await halfway.write(transfer(bank, m, 5))
    frozen = await together(ledger.freeze(m, status), commit_when_waited_for(ledger, halfway))
    assert code(frozen[0]) == ("account-not-empty" if status is Status.CLOSED else "posted")
    assert await held_up(ledger, m) == (5, 0, 0)
    await ledger.prove()


async def commit_when_waited_for(ledger: Ledger, halfway: Halfway) -> None:
    await eventually(lambda: is_waiting_for_a_lock(halfway.ledger), "the freeze waits")
    await halfway.commit()


async def test_a_credit_that_is_buffered_while_an_account_is_frozen_is_refused(ledger: Ledger) -> None:
    m, bank = await scene(ledger)
    other = await ledger.worker(1)
    assert posted(await other.post_one(transfer(bank, m, 5)))
    async with overtaken(ledger, SetStatus(m, Status.FROZEN_ALL, "", ""), other, transfer(bank, m, 5)) as outcomes:
        assert codes(outcomes) == ["posted", "account-frozen"]
    assert await held_up(ledger, m) == (5, 0, 0)
    await ledger.prove()


async def test_a_worker_that_does_not_know_the_new_policy_posts_under_it(ledger: Ledger) -> None:
    m, bank = await scene(ledger)
    other = await ledger.worker(1)
    assert posted(await other.post_one(transfer(bank, m, 1)))
    assert (await policy(ledger, m, buffered=False)).refusal is None
    assert (await policy(ledger, m, buffered=False)).replay
    assert await held_up(ledger, m) == (1, 0, 0)
    assert posted(await other.post_one(transfer(bank, m, 2)))
    assert await held_up(ledger, m) == (3, 0, 0)
    assert (await policy(ledger, m, buffered=True)).refusal is None
    assert posted(await other.post_one(transfer(bank, m, 4)))
    assert await held_up(ledger, m) == (3, 0, 4)
    events = await ledger.connection.fetch("SELECT buffered, reason FROM ledger.route_events ORDER BY id")
    assert [tuple(event) for event in events] == [(False, "a test"), (True, "a test")]
    await ledger.prove()


async def test_a_credit_that_commits_late_is_drained_all_the_same(ledger: Ledger) -> None:
    """The credit is decided before others and committed after their drain. A watermark would miss it."""
    m, bank = await scene(ledger)
    late = Halfway(await ledger.worker(1))
    await late.write(transfer(bank, m, 5))
    assert posted(await ledger.post_one(transfer(bank, m, 10)))
    await ledger.post_one(Drain(m))
    assert await held_up(ledger, m) == (10, 0, 0)
    await late.commit()
    assert await held_up(ledger, m) == (10, 0, 5)
    await ledger.post_one(Drain(m))
    assert await held_up(ledger, m) == (15, 0, 0)
    await ledger.prove()


async def test_two_concurrent_drains_drain_once(ledger: Ledger) -> None:
    m, bank = await scene(ledger)
    await ledger.post(transfer(bank, m, 10), transfer(bank, m, 5))
    async with overtaken(ledger, Drain(m), await ledger.worker(1), Drain(m)) as outcomes:
        assert [len(outcome.drained) for outcome in outcomes] == [2, 0]
    assert await held_up(ledger, m) == (15, 0, 0)
    await ledger.prove()


async def test_debits_that_together_exceed_all_that_waits_take_exactly_what_there_is(ledger: Ledger) -> None:
    m, bank = await scene(ledger)
    workers = [ledger, await ledger.worker(1), await ledger.worker(2)]
    for _ in range(ROUNDS):
        await together(*(w.post(*(transfer(bank, m, 10) for _ in range(4))) for w in workers))
        asked = [[transfer(m, bank, 10) for _ in range(6)] for _ in workers]
        commands = [[*debits[:3], *([Drain(m)] if i == 1 else []), *debits[3:]] for i, debits in enumerate(asked)]
        outcomes = await together(*(w.post(*some) for w, some in zip(workers, commands, strict=True)))
        words = [code(o) for of in outcomes for o in of if not (isinstance(o, Outcome) and o.drained is not None)]
        assert sorted(words) == ["insufficient-funds"] * 6 + ["posted"] * 12
        assert await held_up(ledger, m) == (0, 0, 0)
    await ledger.prove()


TAMPERED = {
    "an amount": "UPDATE ledger.buffered_entries SET amount = 1000 WHERE number = 2",
    "a voucher": "UPDATE ledger.buffered_entries SET voucher_id = gen_random_uuid() WHERE number = 1",
    "a day": "UPDATE ledger.buffered_entries SET accounting_date = accounting_date - 1",
    "the last is gone": "DELETE FROM ledger.buffered_entries WHERE number = 3",
    "the first is gone": "DELETE FROM ledger.buffered_entries WHERE number = 1",
    "one in the middle is gone": "DELETE FROM ledger.buffered_entries WHERE number = 2",
}


@pytest.mark.parametrize("what", TAMPERED)
async def test_a_buffer_that_does_not_verify_is_not_drained_and_the_account_is_frozen(
    ledger: Ledger, what: str
) -> None:
    m, bank = await scene(ledger)
    await ledger.post(*(transfer(bank, m, 10) for _ in range(3)))
    await ledger.connection.execute("ALTER TABLE ledger.buffered_entries DISABLE TRIGGER ALL")
    await ledger.tamper(TAMPERED[what])
    left = await ledger.count("buffered_entries")
    assert code(await ledger.post_one(transfer(m, bank, 5))) == "account-frozen"
    assert (await ledger.post_one(Drain(m))).drained == []
    assert await ledger.status(m) == Status.FROZEN_INTEGRITY
    assert await ledger.count("buffered_entries") == left
    assert await ledger.count("integrity_findings") >= 1
    report = await verify(ledger.dsn, ledger.keys)
    assert "mac_verifies_buffered" in {check.name for check in report.checks if not check.ok}


async def test_a_whole_batch_that_is_gone_from_the_buffer_is_found(ledger: Ledger) -> None:
    m, bank = await scene(ledger)
    await ledger.post(transfer(bank, m, 10))
    await ledger.tamper("DELETE FROM ledger.buffered_entries")
    report = await verify(ledger.dsn, ledger.keys)
    assert {c.name for c in report.checks if not c.ok} == {"voucher_equals_entries", "trial_balance"}


async def test_a_policy_that_was_set_behind_the_ledgers_back_is_found(ledger: Ledger) -> None:
    m, bank = await ledger.account("m"), await ledger.account("bank", "bank")
    await ledger.tamper("UPDATE ledger.sub_accounts SET buffered = true WHERE account_number = $1", m.number)
    assert code(await ledger.post_one(transfer(bank, m, 1))) == "account-frozen"


async def test_the_buffer_is_written_with_its_voucher_or_not_at_all(ledger: Ledger) -> None:
    m, bank = await scene(ledger)
    await ledger.connection.execute("ALTER TABLE ledger.buffered_entries ADD CONSTRAINT none CHECK (amount <> 7)")
    outcomes = await ledger.post(transfer(bank, m, 6), transfer(bank, m, 7), transfer(bank, m, 8))
    assert codes(outcomes) == ["posted", "GuardHit", "posted"]
    assert await held_up(ledger, m) == (0, 0, 14)
    assert await ledger.posted(bank) == 14
    await ledger.connection.execute('ALTER TABLE ledger.buffered_entries DROP CONSTRAINT "none"')
    await ledger.prove()


async def test_evidence_is_found_once_and_left_alone(ledger: Ledger) -> None:
    m, bank = await scene(ledger)
    await ledger.post(*(transfer(bank, m, 10) for _ in range(3)))
    await ledger.tamper("DELETE FROM ledger.buffered_entries WHERE number = 2")
    for _ in range(3):
        assert (await ledger.post_one(Drain(m))).drained == []
    assert await ledger.count("integrity_findings") == 1
    assert await ledger.count("account_events") == 1
    waiting = await ledger.connection.fetch(FOLDER_SQL["backlog"])
    assert waiting == [], "nobody else's credits are posted directly because of it"


async def test_a_split_keeps_the_policy_that_an_account_was_opened_with(ledger: Ledger) -> None:
    m, bank = await scene(ledger)
    assert (await ledger.post_one(Resplit(m, 2, "a test", "tests"))).refusal is None
    await follow(ledger.connection, ledger.directory, {}, await read_routes(ledger.connection))
    known = ledger.directory.get("m")
    assert known is not None
    assert (known.slots, known.buffered) == (2, True)
    await ledger.post_one(transfer(bank, known, 5))
    assert await held_up(ledger, m) == (0, 0, 5)
    await ledger.prove()
