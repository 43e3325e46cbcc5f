"""`rules.decide`, command by command: its changes of the batch, and the details of its outcomes."""

import pytest

from fundledger.ledger.model.account import Status
from fundledger.ledger.model.batch import AtomicGroup
from fundledger.ledger.model.hold import HoldStatus, PlaceHold
from fundledger.ledger.model.refusal import Code, Refusal
from fundledger.security import canonical
from tests.ledger.test_rules import ALL, CLOSED, DEBITS, INTEGRITY, group_beyond_funds, merchants, the_same_id_twice
from tests.support.ledger import capture, code, codes, expire, new_id, release, reversal, transfer, voucher
from tests.support.world import KEY, NOW_US, World


def test_entries_of_a_sub_account_are_chained_and_numbered() -> None:
    world = World()
    a, b = merchants(world, posted=100)
    first, second = transfer(a, b, 10), voucher((a, -1), (b, 3), (a, -2))
    world.decide(first, second)
    entries = [e for e in world.batch.entries if e[1] == a.number]
    assert [(seq, id_, amount, balance) for _, _, _, seq, id_, amount, balance, *_ in entries] == [
        (6, first.id, -10, 90),
        (7, second.id, -1, 89),
        (8, second.id, -2, 87),
    ]
    previous = canonical.GENESIS
    day = world.batch.accounting_date.toordinal()
    for _, number, slot, seq, id_, amount, balance, mac, _, module in entries:
        fields = (number, slot, seq, id_.bytes, amount, balance, day, NOW_US, previous, KEY.version)
        message = canonical.entry_2(module, *fields)
        assert mac == KEY.tag(message)
        previous = mac
    assert world.sub(a).last_entry_mac == previous


def test_a_capture_takes_what_the_voucher_debits_and_frees_the_rest() -> None:
    world = World()
    a, b = merchants(world, posted=100)
    hold = world.hold("h", a, 50)
    payment = capture(hold, b, 30)
    world.decide(payment)
    assert (world.sub(a).posted, world.sub(a).held, world.sub(b).posted) == (70, 0, 30)
    assert (hold.status, hold.captured, hold.voucher_id) == (HoldStatus.CAPTURED, 30, payment.id)
    assert hold.ended_at_us == NOW_US


def test_a_capture_in_a_debit_normal_account_counts_its_credits() -> None:
    world = World()
    owed = world.account("r:1", "receivable", posted=100)
    bank = world.account("bank", "bank")
    hold = world.hold("h", owed, 50)
    outcome = world.decide(voucher((owed, 30), (bank, -30), hold=hold))[0]
    assert (code(outcome), hold.captured, world.available(owed)) == ("posted", 30, 70)


def test_an_aborted_group_leaves_no_trace_but_its_culprit() -> None:
    world = World()
    commands = group_beyond_funds(world)[:1]
    group = commands[0].vouchers
    before = world.balances()
    world.decide(*commands)
    assert world.balances() == before
    assert world.batch.entries == []
    assert world.new_ids() == [group[1].id]
    assert set(world.batch.vouchers) == {group[1].key}


def test_an_aborted_group_gives_a_repeat_its_old_answer() -> None:
    world = World()
    a, b = merchants(world, posted=10)
    old = transfer(a, b, 1)
    record = world.record(old)
    parts = world.decide(AtomicGroup([old, transfer(a, b, 11), old]))[0].parts
    assert codes(parts) == ["posted", "insufficient-funds", "posted"]
    assert [part.replay for part in parts] == [True, False, True]
    assert parts[0].record is record


@pytest.mark.parametrize("stood_before", [True, False])
def test_a_culprit_that_is_twice_in_a_group_is_reported_twice(stood_before: bool) -> None:
    world = World()
    a, b = merchants(world, posted=10)
    id_ = new_id()
    if stood_before:
        world.record(transfer(a, b, 11, id_=id_), Refusal(Code.INSUFFICIENT_FUNDS, "then"))
    group = [transfer(a, b, 1), transfer(a, b, 11, id_=id_), transfer(a, b, 11, id_=id_)]
    parts = world.decide(AtomicGroup(group))[0].parts
    assert codes(parts) == ["batch-aborted", "insufficient-funds", "insufficient-funds"]
    assert [part.replay for part in parts] == [False, stood_before, True]


def test_an_aborted_group_reports_commits_of_an_earlier_attempt_of_this_batch_as_new() -> None:
    world = World()
    a, b = merchants(world, posted=10)
    mine = transfer(a, b, 1)
    world.record(mine, batch=world.batch.number)
    world.batch.mine.add(mine.key)
    parts = world.decide(AtomicGroup([mine, transfer(a, b, 11)]))[0].parts
    assert [(code(part), part.replay) for part in parts] == [("posted", False), ("insufficient-funds", False)]


def test_a_used_id_with_other_content_does_not_get_the_answer_of_the_first_one_when_its_group_is_aborted() -> None:
    world = World()
    a, b = merchants(world, posted=10)
    old = transfer(a, b, 1)
    world.record(old)
    reused = transfer(a, b, 2, id_=old.id)
    parts = world.decide(AtomicGroup([transfer(a, b, 11), reused]))[0].parts
    assert codes(parts) == ["insufficient-funds", "batch-aborted"]
    assert [(part.record, part.replay) for part in parts[1:]] == [(None, False)]


def test_a_group_takes_no_captures_and_no_reversals() -> None:
    """An aborted group could not undo a capture or a reversal, so a group with one of them is a bug."""
    world = World()
    a, b = merchants(world, posted=20)
    original = transfer(b, a, 1)
    world.record(original)
    for voucher_ in (capture(world.hold("h", a, 10), b, 4), reversal(original)):
        with pytest.raises(AssertionError):
            world.decide(AtomicGroup([voucher_]))


def test_a_release_of_a_row_that_did_not_verify_is_refused_and_writes_nothing() -> None:
    """Writing the edited row would give it a MAC that verifies."""
    world = World()
    a = world.account("m:1", posted=100, status=Status.FROZEN_INTEGRITY)
    hold = world.hold("h", a, 10)
    before = world.balances()
    outcomes = world.decide(release(hold))
    assert codes(outcomes) == ["account-frozen"]
    assert world.balances() == before


def test_an_expiry_of_a_row_that_did_not_verify_writes_nothing() -> None:
    world = World()
    a = world.account("m:1", posted=100, status=Status.FROZEN_INTEGRITY)
    hold = world.hold("h", a, 10, expires_at_us=NOW_US)
    before = world.balances()
    world.decide(expire(hold))
    assert world.balances() == before


def test_a_replay_within_a_batch_is_reported_as_one() -> None:
    world = World()
    outcomes = world.decide(*the_same_id_twice(world))
    assert [outcome.replay for outcome in outcomes] == [False, True, False]
    assert outcomes[0].record is outcomes[1].record


def test_what_an_earlier_attempt_of_this_batch_committed_is_no_replay() -> None:
    world = World()
    a, b = merchants(world)
    mine = transfer(a, b, 1)
    world.record(mine, batch=world.batch.number)
    world.batch.mine.add(mine.key)
    outcomes = world.decide(mine, mine)
    assert [outcome.replay for outcome in outcomes] == [False, True]
    assert world.new_ids() == []


def test_a_hold_that_is_placed_is_written_with_its_account() -> None:
    world = World()
    a, _ = merchants(world)
    request = PlaceHold("h", a, 10, NOW_US + 5, "dev")
    hold = world.decide(request)[0].hold
    assert (hold.id, hold.module, hold.account, hold.slot, hold.amount) == ("h", "dev", a, 0, 10)
    assert (hold.captured, hold.voucher_id, hold.refusal, hold.digest) == (0, None, None, request.digest)
    assert (hold.created_at_us, hold.expires_at_us, hold.ended_at_us) == (NOW_US, NOW_US + 5, 0)
    assert (world.sub(a).held, world.sub(a).written) == (10, True)
    assert (world.batch.changed_holds, world.batch.new_holds) == ({hold.key: hold}, {hold.key})


def test_a_hold_that_is_refused_is_written_alone() -> None:
    world = World()
    a, _ = merchants(world)
    hold = world.decide(PlaceHold("h", a, 101, 0, "dev"))[0].hold
    assert (hold.status, hold.refusal.code) == (HoldStatus.REFUSED, Code.INSUFFICIENT_FUNDS)
    assert (world.sub(a).held, world.sub(a).written) == (0, False)
    assert (world.batch.changed_holds, world.batch.new_holds) == ({hold.key: hold}, {hold.key})


ENDS = {"release": HoldStatus.RELEASED, "expire": HoldStatus.EXPIRED, "capture": HoldStatus.CAPTURED}


@pytest.mark.parametrize("how", ENDS)
def test_a_hold_that_ends_is_written_with_its_account(how: str) -> None:
    world = World()
    a, b = merchants(world)
    hold = world.hold("h", a, 10, expires_at_us=NOW_US if how == "expire" else 0)
    command = {"release": release, "expire": expire, "capture": lambda hold: capture(hold, b, 10)}[how](hold)
    world.decide(command)
    assert (hold.status, hold.ended_at_us) == (ENDS[how], NOW_US)
    assert (world.sub(a).held, world.sub(a).written) == (0, True)
    assert (world.batch.changed_holds, world.batch.new_holds) == ({hold.key: hold}, set())


def test_a_release_of_what_was_released_is_a_replay() -> None:
    world = World()
    a, _ = merchants(world)
    hold = world.hold("h", a, 10)
    assert [outcome.replay for outcome in world.decide(release(hold), release(hold))] == [False, True]
    assert world.sub(a).held == 0


def test_only_a_reversal_marks_what_it_reverses() -> None:
    world = World()
    a, b = merchants(world)
    first = transfer(b, a, 10)
    world.record(first)
    world.sub(a).posted, again = 110, reversal(first)
    world.decide(transfer(a, b, 1), again)
    assert world.batch.reversed_by == {(first.module, first.id): again.id}


def test_a_hold_that_an_earlier_attempt_of_this_batch_committed_is_no_replay() -> None:
    world = World()
    a, _ = merchants(world)
    world.batch.my_holds.add(world.hold("h", a, 10).key)
    request = PlaceHold("h", a, 10, 0, "dev")
    assert [outcome.replay for outcome in world.decide(request, request)] == [False, True]
    assert (world.sub(a).held, world.batch.new_holds) == (10, set())


def test_a_mismatch_of_currencies_names_the_first_account_that_differs_from_the_first() -> None:
    world = World()
    a, b = world.account("m:1", posted=100), world.account("m:2", currency="USD")
    c = world.account("m:3", currency="EUR")
    refusal = world.decide(voucher((a, -10), (b, 4), (a, 3), (c, 3)))[0].refusal
    assert (refusal.code, refusal.account, refusal.field) == (Code.CURRENCY_MISMATCH, "m:2", "entries")
    assert refusal.detail == "account m:2 is in USD, account m:1 in CNY"


@pytest.mark.parametrize(("status", "expected"), [(INTEGRITY, "account-frozen"), (ALL, "hold-exceeded")])
def test_a_capture_that_takes_nothing_of_the_account_of_its_hold(status: Status, expected: str) -> None:
    """Such a capture would end the hold without moving money. A row that did not verify is refused before the check."""
    world = World()
    a, b = merchants(world)
    frozen = world.account("m:3", posted=100, status=status)
    outcome = world.decide(transfer(a, b, 10, hold=world.hold("h", frozen, 10)))[0]
    assert code(outcome) == expected
    assert (world.sub(frozen).held, world.sub(frozen).written) == (10, False)


@pytest.mark.parametrize(
    ("status", "detail"),
    [
        (CLOSED, "account m:1 is closed"),
        (DEBITS, "account m:1 is frozen and takes no debits"),
        (ALL, "account m:1 is frozen and takes no entries"),
        (INTEGRITY, "account m:1 is frozen and takes no entries"),
    ],
)
def test_a_refusal_says_what_an_account_does_not_take(status: Status, detail: str) -> None:
    world = World()
    a, b = merchants(world, status=status)
    assert world.decide(transfer(a, b, 1))[0].refusal.detail == detail


def test_a_refusal_names_the_account_and_nobodys_balance() -> None:
    world = World()
    a, b = merchants(world, posted=123_456)
    refusal = world.decide(transfer(a, b, 200_000))[0].refusal
    assert refusal.account == "m:1"
    assert "123456" not in refusal.detail
    assert "123,456" not in refusal.detail
