"""Rules for buffered credits, without a database: which credits are buffered, how they are posted, which are lost."""

import itertools
import random
from datetime import date, timedelta

import msgspec
import pytest

from fundledger.ledger.model.account import BALANCE_MAX, Account, Status
from fundledger.ledger.model.batch import AtomicGroup, BufferedCredit, Drain, SetPolicy
from fundledger.ledger.rules.buffer import AMOUNT_MAX, defer, message_of, what_is_wrong
from fundledger.security import canonical
from fundledger.security.keys import KeyFault
from fundledger.security.mac import MacKey
from tests.support.ledger import code, codes, new_id, transfer, voucher
from tests.support.length import unless_long
from tests.support.world import KEY, NOW_US, World

OPEN, DEBITS, ALL, CLOSED, INTEGRITY, MERGED = Status
TODAY = date(2026, 1, 1)


class TwoKeys:
    """A key ring with versions 1 and 2."""

    current = MacKey(2, bytes(32))

    def by_version(self, version: int) -> MacKey:
        if version not in (1, 2):
            raise KeyFault(f"no key {version}")
        return KEY if version == 1 else self.current


KEYS = TwoKeys()


def row(batch: int, number: int, of: int, *, account: int = 1, key_version: int = 1, **more: object) -> BufferedCredit:
    """Return a row that verifies."""
    fields = {"module": "dev", "amount": 5, "accounting_date": TODAY, "posted_at_us": NOW_US - 9, **more}
    bare = BufferedCredit(
        batch=batch, number=number, of=of, voucher_id=new_id(), key_version=key_version, mac=b"", **fields
    )
    return msgspec.structs.replace(bare, mac=KEYS.by_version(key_version).tag(message_of(account, bare)))


# --- Credits that wait ----------------------------------------------------------------------------------------------


def deferring(world: World, account: Account) -> Account:
    world.batch.deferred[account.number] = world.sub(account)
    return account


def test_a_credit_of_a_buffered_account_waits_and_the_other_lines_are_posted() -> None:
    world = World()
    m1, m2, bank = world.account("m:1"), world.account("m:2"), world.account("bank", "bank")
    deferring(world, m1)
    asked = voucher((bank, -10), (m1, 4), (m2, 5), (m1, 1))
    outcome = world.decide(asked)[0]
    assert code(outcome) == "posted"
    assert outcome.record.lines == asked.lines
    assert world.batch.buffered == [(m1.number, asked.key, 4), (m1.number, asked.key, 1)]
    assert (world.sub(m1).posted, world.sub(m1).written) == (0, False)
    assert (world.sub(m2).posted, world.sub(bank).posted) == (5, -10)
    assert sorted((entry[1], entry[5]) for entry in world.batch.entries) == [(m2.number, 5), (bank.number, -10)]
    assert world.batch.counts == []


def test_a_credit_waits_on_slot_0_of_an_account_over_slots() -> None:
    world = World()
    world.batch.ordinal = 1
    account, bank = world.split("m:1", [(3, 0, OPEN), (4, 0, OPEN)]), world.account("bank", "bank")
    deferring(world, account)
    world.sub(account, 1).status = Status.FROZEN_ALL  # slot 0 alone decides whether a credit may wait
    assert code(world.decide(transfer(bank, account, 7))[0]) == "posted"
    assert [amount for _, _, amount in world.batch.buffered] == [7]
    assert [slot.posted for slot in world.slots(account)] == [3, 4]


@pytest.mark.parametrize("status", [ALL, CLOSED, INTEGRITY])
def test_a_credit_of_an_account_that_is_not_open_does_not_wait(status: Status) -> None:
    world = World()
    account, bank = world.account("m:1", status=status), world.account("bank", "bank")
    deferring(world, account)
    assert code(world.decide(transfer(bank, account, 7))[0]) == f"account-{'closed' if status == CLOSED else 'frozen'}"
    assert (world.batch.buffered, world.batch.entries) == ([], [])


def test_a_group_that_is_refused_leaves_nothing_waiting() -> None:
    world = World()
    account, bank = deferring(world, world.account("m:1")), world.account("bank", "bank")
    poor = world.account("m:2")
    first = transfer(bank, account, 1)
    outcomes = world.decide(first, AtomicGroup([transfer(bank, account, 2), transfer(poor, bank, 3)]))
    assert codes(outcomes[1].parts) == ["batch-aborted", "insufficient-funds"]
    assert world.batch.buffered == [(account.number, first.key, 1)]


def test_four_million_credits_of_the_largest_size_may_wait_before_a_balance_leaves_its_range() -> None:
    assert AMOUNT_MAX << 22 <= BALANCE_MAX < AMOUNT_MAX << 23


# --- Posting of credits ---------------------------------------------------------------------------------------------


def test_a_drain_posts_all_that_waits_once_a_module_and_day_in_order_of_arrival() -> None:
    pick = random.Random(4)
    for _ in range(unless_long(200, 5_000)):
        world = World()
        account = world.account("m:1", posted=100, status=pick.choice((OPEN, DEBITS)))
        rows = [
            row(
                batch,
                number,
                3,
                amount=pick.randint(1, 50),
                module=pick.choice(("dev", "fund", None)),
                accounting_date=TODAY - timedelta(days=pick.randint(0, 1)),
                posted_at_us=NOW_US - pick.randint(1, 3),
            )
            for batch, number in itertools.product((3, 4), (1, 2, 3))
        ]
        pick.shuffle(rows)
        world.batch.backlog[account.number] = list(rows)
        drained = world.decide(Drain(account))[0].drained
        assert sorted(drained) == sorted(row.posted_at_us for row in rows)
        arrived = sorted(rows, key=lambda r: (r.posted_at_us, r.batch, r.number))
        groups: dict[tuple[date, str | None], list[BufferedCredit]] = {}
        for each in arrived:
            groups.setdefault((each.accounting_date, each.module), []).append(each)
        balance, expected = 100, []
        for i, ((day, module), of_group) in enumerate(groups.items()):
            amount = sum(each.amount for each in of_group)
            balance += amount
            ids = [each.voucher_id for each in of_group]
            expected.append(
                (0, account.number, 0, 6 + i, ids if len(ids) > 1 else ids[0], amount, balance, day, module)
            )
        assert [(*entry[:7], *entry[8:]) for entry in world.batch.entries] == expected
        sub = world.sub(account)
        assert (sub.posted, sub.seq, sub.written) == (balance, 5 + len(groups), True)
        assert sorted(row.voucher_id.bytes for _, row in world.batch.drained) == sorted(
            row.voucher_id.bytes for row in rows
        )
        assert {number for number, _ in world.batch.drained} == {account.number}


@pytest.mark.parametrize("status", [ALL, CLOSED, INTEGRITY])
def test_nothing_is_posted_to_an_account_that_takes_no_credits(status: Status) -> None:
    world = World()
    account, other = world.account("m:1", posted=100, status=status), world.account("m:2")
    world.batch.backlog = {account.number: [row(3, 1, 1)], other.number: [row(3, 1, 1, account=2)]}
    outcomes = world.decide(Drain(account), Drain(other))
    assert [outcome.drained for outcome in outcomes] == [[], [NOW_US - 9]]
    assert (world.sub(account).posted, world.sub(account).written) == (100, False)
    assert [number for number, _ in world.batch.drained] == [other.number]


def test_a_debit_may_spend_what_was_waiting() -> None:
    world = World()
    account, bank = world.account("m:1", posted=1), world.account("bank", "bank")
    world.batch.backlog[account.number] = [row(3, 1, 2, amount=4), row(3, 2, 2, amount=5)]
    assert codes(world.decide(transfer(account, bank, 10), transfer(account, bank, 1))) == [
        "posted",
        "insufficient-funds",
    ]
    assert world.sub(account).posted == 0


POLICIES = [
    # status, buffered before, wanted, result
    (OPEN, False, True, "changed"),
    (OPEN, True, False, "changed"),
    (OPEN, True, True, "unchanged"),
    (OPEN, False, False, "unchanged"),
    (ALL, False, True, "changed"),
    (CLOSED, False, True, "account-closed"),
    (INTEGRITY, True, False, "account-frozen"),
]


@pytest.mark.parametrize(("status", "before", "wanted", "expected"), POLICIES)
def test_a_policy_is_set_once_and_not_on_an_account_that_is_closed_or_not_believed(
    status: Status, before: bool, wanted: bool, expected: str
) -> None:
    world = World()
    account = world.split("m:1", [(5, 0, status)], buffered=before)
    request = SetPolicy(account, wanted, "why", "tests")
    outcome = world.decide(request)[0]
    said = code(outcome) if outcome.refusal else "unchanged" if outcome.replay else "changed"
    assert said == expected
    changed = expected == "changed"
    assert (world.sub(account).buffered, world.sub(account).written) == (wanted if changed else before, changed)
    assert world.batch.policies == ([request] if changed else [])
    assert not changed or world.batch.has_writes()


# --- Missing credits ------------------------------------------------------------------------------------------------


def whole(*sizes: int) -> list[BufferedCredit]:
    """Return the rows of batches of these sizes, in order. Batch numbers have gaps, because accounts share them."""
    return [row(10 * (i + 1), number, size) for i, size in enumerate(sizes) for number in range(1, size + 1)]


@pytest.mark.parametrize("sizes", [(), (1,), (3,), (1, 1), (2, 3, 1)])
def test_rows_of_whole_batches_are_right(sizes: tuple[int, ...]) -> None:
    assert what_is_wrong(KEYS, 1, whole(*sizes)) is None


def test_any_row_that_is_gone_is_noticed_unless_its_whole_batch_is() -> None:
    rows = whole(2, 3, 1)
    for kept in range(1 << len(rows)):
        some = [row for i, row in enumerate(rows) if kept >> i & 1]
        batches = {each.batch: [r for r in some if r.batch == each.batch] for each in some}
        complete = all(len(of) == of[0].of for of in batches.values())
        assert (what_is_wrong(KEYS, 1, some) is None) == complete, [(r.batch, r.number) for r in some]


def test_a_row_that_stands_twice_or_out_of_order_is_noticed() -> None:
    first, second, third = whole(3)
    for rows in ([first, first, second, third], [first, second, second, third], [second, first, third]):
        assert what_is_wrong(KEYS, 1, rows) is not None


def test_a_message_says_which_row_is_wrong() -> None:
    rows = whole(2, 3)
    assert what_is_wrong(KEYS, 1, rows[:1]) == "batch 10, row 1 of 2: the next one is missing"
    assert what_is_wrong(KEYS, 1, rows[1:]) == "batch 10, row 2 of 2: one before it is missing"
    assert what_is_wrong(KEYS, 1, rows[:3] + rows[4:]) == "batch 20, row 3 of 3: one before it is missing"
    assert what_is_wrong(KEYS, 2, rows) == "batch 10, row 1 of 2: does not match its MAC"


CHANGES = {
    "batch": 11,
    "number": 2,
    "of": 2,
    "voucher_id": new_id(),
    "amount": 6,
    "accounting_date": TODAY + timedelta(days=1),
    "posted_at_us": NOW_US,
    "key_version": 2,
    "mac": bytes(32),
    "module": "fund",
}


@pytest.mark.parametrize("field", BufferedCredit.__struct_fields__)
@pytest.mark.parametrize("module", ["dev", None])
def test_a_row_of_which_a_field_was_changed_does_not_verify(field: str, module: str | None) -> None:
    changed = msgspec.structs.replace(row(10, 1, 1, module=module), **{field: CHANGES[field]})
    assert "does not match its MAC" in (what_is_wrong(KEYS, 1, [changed]) or "")


def test_a_row_without_a_module_has_the_layout_of_before_modules() -> None:
    old = row(10, 1, 1, module=None)
    fields = (7, 10, 1, 1, old.voucher_id.bytes, 5, TODAY.toordinal(), NOW_US - 9, 1)
    assert message_of(7, old) == canonical.buffered(*fields)
    assert message_of(7, msgspec.structs.replace(old, module="dev")) == canonical.buffered_2("dev", *fields)


def test_rows_are_verified_with_the_key_of_their_version() -> None:
    assert what_is_wrong(KEYS, 1, [row(10, 1, 2), row(10, 2, 2, key_version=2)]) is None
    with pytest.raises(KeyFault):
        what_is_wrong(KEYS, 1, [msgspec.structs.replace(row(10, 1, 1), key_version=3)])


def test_each_line_of_a_voucher_belongs_to_a_place() -> None:
    """A line without a sub-account is a bug: the other lines of the voucher would be buffered or posted without it."""
    world = World()
    account = world.account("m:1")
    with pytest.raises(ValueError, match="zip"):
        defer(world.batch, ("dev", new_id()), [], [(account, 1)])
