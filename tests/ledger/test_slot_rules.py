"""Rules for accounts with several slots, without a database: in tables, and compared with a simple model."""

import itertools
import random
from collections import Counter
from collections.abc import Sequence

import pytest

from fundledger.ledger.model.account import Account, Status, SubAccount
from fundledger.ledger.model.batch import AtomicGroup, Outcome, Rebalance, Resplit
from fundledger.ledger.model.hold import HoldStatus, PlaceHold
from fundledger.ledger.model.refusal import Code
from fundledger.ledger.model.voucher import LEDGER, digest_of
from fundledger.ledger.rules.account import NOT_READ
from fundledger.security import canonical
from tests.support.ledger import capture, code, codes, expire, release, transfer, voucher
from tests.support.length import unless_long
from tests.support.world import KEY, NOW_US, World

OPEN, DEBITS, ALL, CLOSED, INTEGRITY, MERGED = Status
CASES = unless_long(600, 20_000)
TYPES = ("merchant_available", "receivable")
"""Account types of both normal directions: a debit reduces the first, a credit the second."""


def opened(*amounts: int) -> list[tuple[int, int, Status]]:
    return [(amount, 0, OPEN) for amount in amounts]


def available(world: World, account: Account) -> list[int]:
    return [slot.available for slot in world.slots(account)]


def statuses(world: World, account: Account) -> list[int]:
    return [slot.status for slot in world.slots(account)]


def takes(world: World, account: Account, amount: int, **more: object):
    """Return a voucher that reduces an account by an amount: a debit or a credit, by the account's normal direction."""
    other = world.accounts.get("suspense") or world.account("suspense", "suspense")
    signed = -amount * account.type.normal
    return voucher((account, signed), (other, -signed), **more)


# --- Debits over slots ----------------------------------------------------------------------------------------------

TAKEN = [
    # ordinal, available on each slot, taken, left on each
    (0, [5, 7, 0, 9], 5, [0, 7, 0, 9]),
    (0, [5, 7, 0, 9], 6, [0, 7, 0, 8]),
    (0, [5, 7, 0, 9], 14, [0, 7, 0, 0]),
    (0, [5, 7, 0, 9], 15, [0, 6, 0, 0]),
    (0, [5, 7, 0, 9], 21, [0, 0, 0, 0]),
    (2, [5, 7, 0, 9], 1, [5, 7, 0, 8]),
    (3, [5, 7, 0, 9], 10, [5, 6, 0, 0]),
    (5, [5, 7, 0, 9], 3, [5, 4, 0, 9]),
    (0, [0, 7, 7], 1, [0, 6, 7]),
    (1, [7, 0, 7], 8, [0, 0, 6]),
]


@pytest.mark.parametrize("type_", TYPES)
@pytest.mark.parametrize(("ordinal", "amounts", "taken", "left"), TAKEN)
def test_a_slot_gives_all_that_it_has_and_the_richest_give_the_rest(
    type_: str, ordinal: int, amounts: list[int], taken: int, left: list[int]
) -> None:
    world = World()
    world.batch.ordinal = ordinal
    account = world.split("m:1", opened(*amounts), type_)
    assert code(world.decide(takes(world, account, taken))[0]) == "posted"
    assert available(world, account) == left
    assert_books(world, amounts={account.id: sum(amounts)})


@pytest.mark.parametrize("type_", TYPES)
def test_one_more_than_all_slots_have_is_refused_and_moves_nothing(type_: str) -> None:
    world = World()
    account = world.split("m:1", [(5, 0, OPEN), (9, 2, OPEN), (0, 0, MERGED), (3, 3, OPEN)], type_)
    outcome = world.decide(takes(world, account, 13))[0]
    assert (code(outcome), outcome.refusal.account) == ("insufficient-funds", "m:1")
    assert available(world, account) == [5, 7, 0, 0]
    assert world.batch.entries == []
    assert code(world.decide(takes(world, account, 12))[0]) == "posted"
    assert available(world, account) == [0, 0, 0, 0]


def assert_books(world: World, amounts: dict[str, int]) -> None:
    """Assert that the entries of each posted voucher add up to its lines, and that balances are the sums of entries."""
    normal = {account.id: account.type.normal for account in world.accounts.values()}
    by_number = {account.number: account for account in world.accounts.values()}
    moved: Counter[str] = Counter()
    shown: Counter[tuple[object, int]] = Counter()
    mores = {tuple(key): more for *key, more in world.batch.counts}
    for shard, number, slot, seq, of, amount, *_ in world.batch.entries:
        moved[by_number[number].id] += amount
        if not isinstance(of, list):
            assert amount != 0 or by_number[number].id not in amounts, "an entry that moves nothing"
            shown[of, number] += 1 + mores.get((shard, number, slot, seq), 0)
    records = [record for _, record in world.batch.new_vouchers if record.refusal is None]
    for id_, before in amounts.items():
        account = world.accounts[id_]
        after = sum(slot.posted for slot in world.slots(account))
        assert after == before * normal[id_] + moved[id_]
        lines = [(r.id, r.type, amount) for r in records for of, amount in r.lines if of.id == id_]
        assert moved[id_] == sum(amount for *_, amount in lines)
        for record in records:
            if any(of.id == id_ for of, _ in record.lines):
                wanted = sum(of.id == id_ for of, _ in record.lines) if record.type != "rebalance" else 0
                assert shown[record.id, account.number] == wanted, record


def a_split(pick: random.Random, world: World) -> tuple[Account, list[int]]:
    rows = []
    for slot in range(pick.randint(1, 5)):
        if slot and pick.random() < 0.2:
            rows.append((0, 0, MERGED))
        else:
            held = pick.choice((0, 0, pick.randint(0, 9)))
            rows.append((pick.randint(0, 12) + held, held, OPEN))
    known = pick.choice((len(rows), len(rows), pick.randint(1, 6)))
    account = world.split("m:1", rows, pick.choice(TYPES), known_slots=known)
    return account, [posted for posted, _, _ in rows]


def preferred(world: World, account: Account) -> int:
    """Return the slot that the worker prefers, or slot 0 if that slot is merged or does not exist."""
    slots = world.slots(account)
    slot = world.batch.ordinal % account.slots
    return slot if slot < len(slots) and slots[slot].status == OPEN else 0


def test_a_voucher_over_slots_is_posted_exactly_when_all_slots_together_cover_it() -> None:
    pick = random.Random(1)
    said = Counter()
    for _ in range(CASES):
        world = World()
        world.batch.ordinal = pick.randint(0, 7)
        account, posted = a_split(pick, world)
        other = world.account("suspense", "suspense")
        wanted = [pick.randint(-20, 8) or 1 for _ in range(pick.choice((1, 1, 1, 2, 3)))]
        lines = [(account, amount * account.type.normal) for amount in wanted]
        before, first = available(world, account), preferred(world, account)
        change = sum(wanted)
        expected = list(before)
        expected[first] += change
        needs = -expected[first] if change < 0 else 0
        if needs > 0:
            expected[first] = 0
            for giver in sorted((i for i in range(len(before)) if i != first), key=lambda i: -before[i]):
                expected[giver] -= min(needs, before[giver])
                needs -= before[giver] - expected[giver]
        outcome = world.decide(voucher(*lines, (other, -sum(amount for _, amount in lines))))[0]
        said[code(outcome)] += 1
        if needs > 0:
            assert code(outcome) == "insufficient-funds"
            assert available(world, account) == before
        else:
            assert code(outcome) == "posted"
            assert available(world, account) == expected
        assert_books(world, {account.id: sum(posted)})
    assert min(said["posted"], said["insufficient-funds"]) > CASES / 10


def test_a_capture_takes_from_the_slot_where_the_hold_is() -> None:
    world = World()
    account = world.split("m:1", opened(5, 5, 5))
    hold = world.hold("h", account, 4, slot=2)
    other = world.account("m:2")
    assert code(world.decide(capture(hold, other, 3))[0]) == "posted"
    assert [(slot.posted, slot.held) for slot in world.slots(account)] == [(5, 0), (5, 0), (2, 0)]
    assert (hold.status, hold.captured) == (HoldStatus.CAPTURED, 3)


def test_a_capture_counts_lines_of_other_accounts_on_their_own_slots() -> None:
    world = World()
    world.batch.ordinal = 1
    account = world.split("m:1", opened(5, 5, 5))
    other = world.split("m:2", opened(0, 0, 0))
    hold = world.hold("h", account, 4, slot=2)
    assert code(world.decide(capture(hold, other, 4))[0]) == "posted"
    assert (available(world, account), available(world, other)) == ([5, 5, 1], [0, 4, 0])


@pytest.mark.parametrize("type_", TYPES)
def test_a_capture_on_a_slot_that_is_short_takes_the_rest_from_others(type_: str) -> None:
    world = World()
    account = world.split("m:1", [(8, 0, OPEN), (1, 0, OPEN), (9, 0, OPEN)], type_)
    hold = world.hold("h", account, 10, slot=2)
    assert available(world, account) == [8, 1, -1]
    outcome = world.decide(takes(world, account, 10, hold=hold))[0]
    assert code(outcome) == "posted"
    assert available(world, account) == [7, 1, 0]


def test_a_hold_of_one_slot_frees_nothing_on_another() -> None:
    """A voucher captures a hold on slot 1 of one account, and debits slot 1 of another account."""
    world = World()
    world.batch.ordinal = 1
    account = world.split("m:1", opened(0, 5))
    payer = world.split("m:2", opened(0, 3))
    hold = world.hold("h", account, 5, slot=1)
    other = world.account("suspense", "suspense")
    asked = voucher((account, -5), (payer, -4), (other, 9), hold=hold)
    assert code(world.decide(asked)[0]) == "insufficient-funds"
    assert (available(world, account), available(world, payer)) == ([0, 0], [0, 3])


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_each_account_pays_its_own_lines_whatever_their_order(order: tuple[int, ...]) -> None:
    """In one voucher, two accounts lack funds on the preferred slot, and a third account does not."""
    world = World()
    first, second = world.split("m:1", opened(1, 3, 2)), world.split("m:2", opened(2, 1, 1))
    third, bank = world.split("m:3", opened(9, 9)), world.account("bank", "bank")
    lines = [(first, -5), (second, -3), (third, -4), (bank, 12)]
    assert code(world.decide(voucher(*[lines[i] for i in order]))[0]) == "posted"
    assert [available(world, account) for account in (first, second, third)] == [[0, 0, 1], [0, 0, 1], [5, 9]]
    assert_books(world, {"m:1": 6, "m:2": 4, "m:3": 18, "bank": 0})


# --- Slots that cannot be used --------------------------------------------------------------------------------------

UNUSABLE = [
    # type, status of another slot, result
    ("merchant_available", DEBITS, "account-frozen"),
    ("merchant_available", ALL, "account-frozen"),
    ("merchant_available", INTEGRITY, "account-frozen"),
    ("merchant_available", CLOSED, "account-closed"),
    ("receivable", DEBITS, "posted"),
    ("receivable", ALL, "account-frozen"),
    ("receivable", INTEGRITY, "account-frozen"),
]


@pytest.mark.parametrize(("type_", "status", "expected"), UNUSABLE)
def test_nothing_is_taken_over_a_slot_that_is_not_open(type_: str, status: Status, expected: str) -> None:
    world = World()
    account = world.split("m:1", [(5, 0, OPEN), (9, 0, OPEN), (9, 0, status)], type_)
    outcome = world.decide(takes(world, account, 6))[0]
    assert code(outcome) == expected
    assert expected == "posted" or (available(world, account), outcome.refusal.account) == ([5, 9, 9], "m:1")


@pytest.mark.parametrize("command", ["voucher", "hold"])
def test_each_slot_has_to_be_usable(command: str) -> None:
    """An account of type receivable that is frozen for debits may be repaid, unless a slot did not verify."""
    world = World()
    account = world.split("m:1", [(5, 0, OPEN), (9, 0, DEBITS), (9, 0, INTEGRITY)], "receivable")
    asked = takes(world, account, 6) if command == "voucher" else PlaceHold("h", account, 6, 0, "dev")
    assert code(world.decide(asked)[0]) == "account-frozen"
    assert available(world, account) == [5, 9, 9]


@pytest.mark.parametrize(("type_", "status", "expected"), UNUSABLE)
def test_nothing_is_gathered_for_a_hold_over_a_slot_that_is_not_open(type_: str, status: Status, expected: str) -> None:
    world = World()
    account = world.split("m:1", [(5, 0, OPEN), (9, 0, OPEN), (9, 0, status)], type_)
    outcome = world.decide(PlaceHold("h", account, 6, 0, "dev"))[0]
    assert code(outcome) == expected
    assert sum(slot.held for slot in world.slots(account)) == (6 if expected == "posted" else 0)
    assert expected == "posted" or available(world, account) == [5, 9, 9]


@pytest.mark.parametrize("present", [[0], [0, 2], [1], []])
def test_more_slots_are_requested_before_a_lack_is_reported(present: list[int]) -> None:
    """The slots that were read have insufficient funds. That is no refusal before every slot was read."""
    commands = {
        "voucher": lambda w, a: takes(w, a, 6),
        "hold": lambda w, a: PlaceHold("h", a, 6, 0, "dev"),
        "resplit": lambda w, a: Resplit(a, 2, "why", "tests"),
        "rebalance": lambda w, a: Rebalance(a),
    }
    for name, command in commands.items():
        world = World()
        account = world.split("m:1", opened(5, 5, 5))
        for slot in {0, 1, 2} - set(present):
            del world.batch.sub_accounts[(account.number << 16) + slot]
        if name == "voucher" and present == [1]:
            world.batch.ordinal = 1
        outcome = world.decide(command(world, account))[0]
        assert outcome.refusal is NOT_READ, name
        assert world.batch.narrow == {account.number: 3 if 0 in present else 1}, name
        assert (world.batch.entries, world.batch.routes) == ([], [])


def test_the_slots_of_a_first_slot_that_did_not_verify_are_not_believed() -> None:
    world = World()
    account = world.split("m:1", [(5, 0, INTEGRITY), (5, 0, OPEN)])
    world.sub(account).slots = 200
    world.batch.ordinal = 1
    outcome = world.decide(takes(world, account, 6))[0]
    assert (code(outcome), world.batch.narrow) == ("account-frozen", {})
    for command in (Resplit(account, 4, "why", "tests"), Rebalance(account)):
        assert code(world.decide(command)[0]) == "account-frozen"
        assert (available(world, account), world.batch.routes) == ([5, 5], [])


def test_buffered_credits_are_read_before_a_lack_is_reported() -> None:
    for command in ("voucher", "hold"):
        world = World()
        account = world.split("m:1", opened(2, 2), buffered=True)
        asked = takes(world, account, 5) if command == "voucher" else PlaceHold("h", account, 5, 0, "dev")
        assert world.decide(asked)[0].refusal is NOT_READ
        assert world.batch.to_drain == {account.number}
        world = World()
        account = world.split("m:1", opened(2, 2), buffered=True)
        world.batch.backlog[account.number] = []
        asked = takes(world, account, 5) if command == "voucher" else PlaceHold("h", account, 5, 0, "dev")
        assert code(world.decide(asked)[0]) == "insufficient-funds"
        assert world.batch.to_drain == set()


def test_an_account_that_buffers_nothing_has_nothing_to_wait_for() -> None:
    world = World()
    account = world.split("m:1", opened(2, 2))
    assert code(world.decide(takes(world, account, 5))[0]) == "insufficient-funds"
    assert world.batch.to_drain == set()


def test_a_worker_posts_to_slot_0_where_its_own_was_not_read_and_asks_for_it_where_none_was() -> None:
    world = World()
    world.batch.ordinal = 3
    account = world.split("m:1", opened(5), known_slots=4)
    assert code(world.decide(takes(world, account, 5))[0]) == "posted"
    assert (available(world, account), world.batch.narrow) == ([0], {})
    world = World()
    world.batch.ordinal = 3
    account = world.split("m:1", opened(5), known_slots=4)
    world.batch.sub_accounts.clear()
    outcomes = world.decide(takes(world, account, 5), PlaceHold("h", account, 1, 0, "dev"))
    assert [outcome.refusal for outcome in outcomes] == [NOT_READ, NOT_READ]
    assert world.batch.narrow == {account.number: 1}


# --- Holds ----------------------------------------------------------------------------------------------------------


def test_a_hold_is_placed_exactly_when_all_slots_together_have_its_amount() -> None:
    pick = random.Random(2)
    said = Counter()
    for _ in range(CASES):
        world = World()
        world.batch.ordinal = pick.randint(0, 7)
        account, posted = a_split(pick, world)
        amount = pick.randint(1, 30)
        before, first = available(world, account), preferred(world, account)
        held_before = [slot.held for slot in world.slots(account)]
        expected = list(before)
        lacks = max(0, amount - before[first])
        expected[first] = max(0, before[first] - amount)
        for giver in sorted((i for i in range(len(before)) if i != first), key=lambda i: -before[i]):
            expected[giver] -= min(lacks, before[giver])
            lacks -= before[giver] - expected[giver]
        outcome = world.decide(PlaceHold("h", account, amount, 0, "dev"))[0]
        said[code(outcome)] += 1
        if lacks > 0:
            assert code(outcome) == "insufficient-funds"
            assert outcome.hold.status == HoldStatus.REFUSED
            assert available(world, account) == before
            assert world.batch.new_vouchers == []
        else:
            assert code(outcome) == "posted"
            assert (outcome.hold.status, outcome.hold.slot) == (HoldStatus.OPEN, first)
            assert available(world, account) == expected
            held_before[first] += amount
            assert [slot.held for slot in world.slots(account)] == held_before
            moved = amount > before[first]
            assert [record.type for _, record in world.batch.new_vouchers] == ["rebalance"] * moved
        assert_books(world, {account.id: sum(posted)})
    assert min(said["posted"], said["insufficient-funds"]) > CASES / 10


@pytest.mark.parametrize("how", [release, expire])
def test_the_end_of_a_hold_frees_it_on_its_slot(how) -> None:
    world = World()
    account = world.split("m:1", [(5, 2, OPEN), (5, 0, OPEN)])
    hold = world.hold("h", account, 3, slot=1, expires_at_us=NOW_US if how is expire else 0)
    world.decide(how(hold))
    assert [slot.held for slot in world.slots(account)] == [2, 0]
    assert [slot.written for slot in world.slots(account)] == [False, True]


# --- Splitting and merging ------------------------------------------------------------------------------------------

RESPLITS = [
    # before: posted, held, status of each slot; wanted; after: available and status of each, new slots
    ("split one", [(9, 0, OPEN)], 3, [9, 0, 0], [OPEN, OPEN, OPEN], 2),
    ("split further", [(9, 0, OPEN), (4, 0, OPEN)], 3, [9, 4, 0], [OPEN, OPEN, OPEN], 1),
    ("open a merged one again", [(9, 0, OPEN), (0, 0, MERGED)], 2, [9, 0], [OPEN, OPEN], 0),
    ("open one of two", [(9, 0, OPEN), (0, 0, MERGED), (0, 0, MERGED)], 2, [9, 0, 0], [OPEN, OPEN, MERGED], 0),
    ("merge", [(9, 0, OPEN), (4, 0, OPEN), (0, 0, OPEN)], 1, [13, 0, 0], [OPEN, MERGED, MERGED], 0),
    ("merge some", [(9, 0, OPEN), (4, 0, OPEN), (5, 0, OPEN)], 2, [14, 4, 0], [OPEN, OPEN, MERGED], 0),
    ("leave what is held", [(9, 0, OPEN), (4, 3, OPEN)], 1, [10, 0], [OPEN, OPEN], 0),
    ("make up for what is short", [(9, 0, OPEN), (4, 5, OPEN)], 1, [8, 0], [OPEN, OPEN], 0),
    ("reopen behind and merge", [(1, 0, OPEN), (0, 0, MERGED), (7, 0, OPEN)], 2, [8, 0, 0], [OPEN, OPEN, MERGED], 0),
]


@pytest.mark.parametrize("type_", TYPES)
@pytest.mark.parametrize(("name", "before", "wanted", "left", "are", "new"), RESPLITS, ids=[r[0] for r in RESPLITS])
def test_an_account_is_split_and_merged(
    name: str, before: list, wanted: int, left: list[int], are: list[Status], new: int, type_: str
) -> None:
    world = World()
    account = world.split("m:1", before, type_)
    request = Resplit(account, wanted, "why", "tests")
    outcome = world.decide(request)[0]
    assert (outcome.refusal, outcome.replay) == (None, False)
    assert (available(world, account), statuses(world, account)) == (left, are)
    assert world.batch.routes == [request]
    slots = world.slots(account)
    assert world.batch.opened == (slots[-new:] if new else [])
    for slot in world.batch.opened:
        assert_opened(slot, account, len(before))
    assert slots[0].slots == max(len(before), wanted)
    assert world.batch.resized == ([slots[0]] if new else [])
    is_written = [
        posted * account.type.normal != slot.posted or status != slot.status or (slot.slot == 0 and new > 0)
        for slot, (posted, _, status) in zip(slots, before, strict=False)
    ]
    assert [slot.written for slot in slots[: len(before)]] == is_written
    assert (outcome.record is not None) == (left[: len(before)] != [posted - held for posted, held, _ in before])
    assert_books(world, {account.id: sum(posted for posted, _, _ in before)})
    again = world.decide(Resplit(account, wanted, "why", "tests"))[0]
    done = all((status == OPEN) == (i < wanted) for i, status in enumerate(are))
    assert again.replay == done
    assert (available(world, account), len(world.batch.routes)) == (left, 2)


def assert_opened(slot: SubAccount, account: Account, first: int) -> None:
    """Assert that a slot is empty, verifies, and has no entries."""
    assert (slot.shard, slot.posted, slot.held, slot.version, slot.seq) == (0, 0, 0, 0, 0)
    assert (slot.posted_at_us, slot.status, slot.last_entry_mac) == (NOW_US, OPEN, canonical.GENESIS)
    assert slot.slot >= first
    fields = (account.number, slot.slot, b"CNY", 0, 0, 0, OPEN, 0, NOW_US, canonical.GENESIS, 1)
    assert slot.stored == (0, 0, 0, OPEN, KEY.tag(canonical.sub_account(*fields)))


@pytest.mark.parametrize("status", [DEBITS, ALL, CLOSED, INTEGRITY])
@pytest.mark.parametrize("slot", [0, 1])
def test_an_account_that_is_not_open_is_neither_split_nor_levelled(status: Status, slot: int) -> None:
    rows = opened(9, 1)
    rows[slot] = (rows[slot][0], 0, status)
    expected = "account-closed" if status == CLOSED else "account-frozen"
    for command in (lambda a: Resplit(a, 4, "why", "tests"), lambda a: Resplit(a, 1, "why", "tests"), Rebalance):
        world = World()
        account = world.split("m:1", rows)
        assert code(world.decide(command(account))[0]) == expected
        assert (available(world, account), world.batch.routes, world.batch.opened) == ([9, 1], [], [])


# --- Levelling ------------------------------------------------------------------------------------------------------


def test_rebalancing_leaves_the_same_available_everywhere_to_the_unit() -> None:
    pick = random.Random(3)
    moved = 0
    for _ in range(CASES):
        world = World()
        account, posted = a_split(pick, world)
        before = available(world, account)
        active = [i for i, status in enumerate(statuses(world, account)) if status == OPEN]
        outcome = world.decide(Rebalance(account))[0]
        after = available(world, account)
        total, n = sum(before), len(active)
        expected = [0] * len(before)
        for i, slot in enumerate(active):  # the first slots get the remainder
            expected[slot] = (total + n - 1 - i) // n
        assert after == expected
        assert (outcome.record is None) == (before == after)
        moved += outcome.record is not None
        if outcome.record is not None:
            assert_a_movement(world, outcome, account, before, after)
        assert_books(world, {account.id: sum(posted)})
    assert moved > CASES / 2


def assert_a_movement(
    world: World, outcome: Outcome, account: Account, before: Sequence[int], after: Sequence[int]
) -> None:
    """Assert that a voucher of the ledger moves these amounts: pairs of lines that cancel out, between slots."""
    record = outcome.record
    amounts = [amount * account.type.normal for _, amount in record.lines]
    assert all(of is account for of, _ in record.lines)
    assert all(taken < 0 and taken == -given for taken, given in zip(amounts[::2], amounts[1::2], strict=True))
    assert sum(amounts[1::2]) == sum(max(0, b - a) for a, b in zip(before, after, strict=True))
    assert (record.type, record.module, record.refusal) == ("rebalance", LEDGER, None)
    assert (record.posted_at_us, record.accounting_date) == (NOW_US, world.batch.accounting_date)
    assert record.digest == digest_of("rebalance", [(account.id, a) for _, a in record.lines], None, None, None, None)
    assert world.batch.vouchers[record.key] is record
    assert (account.shard, record) in world.batch.new_vouchers
    slots = {(account.number, slot.slot): slot for slot in world.slots(account)}
    last = {}
    for _, number, slot, seq, of, amount, balance, *_ in world.batch.entries:
        assert of == record.id
        taker = amount * account.type.normal > 0
        assert taker == (after[slot] > before[slot])
        last[number, slot] = seq, balance
    assert all((slots[key].seq, slots[key].posted) == value for key, value in last.items())


def test_movements_of_one_batch_and_of_a_batch_that_is_decided_again_have_ids_of_their_own() -> None:
    ids = set()
    for number, at_us in ((7, NOW_US), (8, NOW_US), (7, NOW_US + 1)):
        world = World()
        world.batch.number, world.batch.posted_at_us = number, at_us
        accounts = [world.split(f"m:{i}", opened(9, 1)) for i in (1, 2)]
        outcomes = world.decide(*map(Rebalance, accounts), Resplit(accounts[0], 1, "why", "tests"))
        ids |= {outcome.record.id for outcome in outcomes}
    assert len(ids) == 9


# --- Atomic groups over slots ---------------------------------------------------------------------------------------


def test_an_aborted_group_over_slots_leaves_no_trace() -> None:
    world = World()
    account = world.split("m:1", opened(3, 4, 5))
    bank = world.account("bank", "bank", posted=100)
    m2 = world.account("m:2")
    kept = transfer(account, m2, 4)
    too_much = AtomicGroup([transfer(account, bank, 5), transfer(bank, m2, 1), transfer(account, bank, 4)])
    outcomes = world.decide(kept, too_much)
    assert code(outcomes[0]) == "posted"
    assert codes(outcomes[1].parts) == ["batch-aborted", "batch-aborted", "insufficient-funds"]
    assert available(world, account) == [0, 4, 4]
    assert {entry[4] for entry in world.batch.entries} == {kept.id}
    assert len(world.batch.counts) == 2
    assert world.sub(bank).posted == -100
    assert_books(world, {account.id: 12, bank.id: 100, m2.id: 0})
    assert outcomes[1].parts[2].refusal.code == Code.INSUFFICIENT_FUNDS
