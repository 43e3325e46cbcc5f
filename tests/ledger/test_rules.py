"""`rules.decide` in tables: one row a case, in order of precedence."""

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import pytest

from fundledger.ledger.model.account import BALANCE_MAX, Status
from fundledger.ledger.model.batch import AtomicGroup, Command, SetStatus
from fundledger.ledger.model.hold import EndHold, HoldStatus, PlaceHold
from fundledger.ledger.model.refusal import FINAL, Code, Refusal
from tests.support.ledger import capture, code, codes, expire, new_id, release, reversal, transfer, voucher
from tests.support.world import NOW_US, World

Commands = Callable[[World], Sequence[Command]]


class Row(NamedTuple):
    """A case. `expects[i]` is the code of `commands[i]`, or `posted`, `placed`, `ended` or `changed` if it is not
    refused.
    """

    name: str
    expects: list[str]
    commands: Commands


def merchants(w: World, posted: int = 100, **more: object) -> tuple:
    return w.account("m:1", posted=posted, **more), w.account("m:2")


# --- Vouchers -------------------------------------------------------------------------------------------------------


def seen_with_other_content(w: World) -> list[Command]:
    a, b = merchants(w)
    first = transfer(a, b, 10)
    w.record(first)
    return [transfer(a, b, 11, id_=first.id)]


def seen_with_the_same_content(w: World) -> list[Command]:
    a, b = merchants(w)
    first = transfer(a, b, 10)
    w.record(first)
    return [transfer(a, b, 10, id_=first.id)]


def seen_and_refused(w: World) -> list[Command]:
    a, b = merchants(w)
    first = transfer(a, b, 10)
    w.record(first, Refusal(Code.INSUFFICIENT_FUNDS, "then"))
    return [transfer(a, b, 10, id_=first.id)]


def repaid_more_than_owed(w: World) -> list[Command]:
    payer = w.account("m:1", posted=100)
    return [transfer(payer, w.account("m:owes", "receivable", posted=5, status=Status.FROZEN_DEBITS), 6)]


def with_status(status: Status, of: str) -> Commands:
    def commands(w: World) -> list[Command]:
        a = w.account("m:1", posted=100, status=status if of == "debit" else Status.OPEN)
        b = w.account("m:2", status=status if of == "credit" else Status.OPEN)
        return [transfer(a, b, 10)]

    return commands


def pays(posted: int, amount: int, type_: str = "merchant_available", held: int = 0) -> Commands:
    """Return a payment of `amount` from an account whose posted balance is `posted`, in its normal direction."""

    def commands(w: World) -> list[Command]:
        a = w.account("m:1", type_, posted=posted, held=held)
        b = w.account("suspense", "suspense")
        signed = -amount * a.type.normal
        return [voucher((a, signed), (b, -signed))]

    return commands


def of_hold(status: HoldStatus, amount: int = 10, hold_amount: int = 10, expires_at_us: int = 0) -> Commands:
    def commands(w: World) -> list[Command]:
        a, b = merchants(w)
        return [capture(w.hold("h", a, hold_amount, status, expires_at_us), b, amount)]

    return commands


def capture_of_no_hold(w: World) -> list[Command]:
    a, b = merchants(w)
    return [transfer(a, b, 1, hold_id="nowhere")]


def capture_of_another_account(w: World) -> list[Command]:
    a, b = merchants(w)
    c = w.account("m:3", posted=100)
    return [transfer(c, b, 10, hold=w.hold("h", a, 10))]


def capture_that_credits_its_account(w: World) -> list[Command]:
    a, b = merchants(w)
    hold = w.hold("h", a, 10)
    return [voucher((b, -1), (a, 1), hold=hold)]


def capture_twice(w: World) -> list[Command]:
    a, b = merchants(w)
    hold = w.hold("h", a, 10)
    return [capture(hold, b, 10), capture(hold, b, 10)]


def capture_with_all_money_held(w: World) -> list[Command]:
    a, b = merchants(w, posted=10)
    return [capture(w.hold("h", a, 10), b, 10)]


def capture_beside_a_debit_of_the_rest(w: World) -> list[Command]:
    a, b = merchants(w, posted=10)
    hold = w.hold("h", a, 6)
    return [capture(hold, b, 4), transfer(a, b, 6), transfer(a, b, 1)]


def reverse_twice(w: World) -> list[Command]:
    a, b = merchants(w)
    first = transfer(a, b, 10)
    w.record(first)
    w.sub(b).posted += 10
    return [reversal(first), reversal(first)]


def reverse_what_was_spent(w: World) -> list[Command]:
    a, b = merchants(w)
    first = transfer(a, b, 10)
    w.record(first)
    return [reversal(first)]


def two_currencies(w: World) -> list[Command]:
    a, b = w.account("m:1", posted=100), w.account("m:2", currency="USD")
    return [transfer(a, b, 10)]


def near_the_edge(by: int) -> Commands:
    def commands(w: World) -> list[Command]:
        a = w.account("bank", "bank")
        b = w.account("m:2", posted=BALANCE_MAX - 10)
        return [transfer(a, b, by)]

    return commands


def near_the_edge_below(by: int) -> Commands:
    def commands(w: World) -> list[Command]:
        a = w.account("bank", "bank", posted=BALANCE_MAX - 10)
        return [transfer(a, w.account("m:2"), by)]

    return commands


def credits_of_what_is_short(w: World) -> list[Command]:
    """Return credits of an account whose holds exceed its balance. No rule causes this state; credits are accepted."""
    short = w.account("m:1", posted=5, held=9)
    bank = w.account("bank", "bank")
    return [transfer(bank, short, 1), voucher((short, 2), (bank, -1), (short, -2), (bank, 1)), transfer(short, bank, 1)]


def the_third_takes_too_much(w: World) -> list[Command]:
    bank, a, b = w.account("bank", "bank"), w.account("m:1"), w.account("m:2", posted=4)
    return [voucher((bank, -5), (a, 10), (b, -5)), voucher((bank, -6), (a, 10), (b, -4))]


def give_and_take_in_one_voucher(w: World) -> list[Command]:
    a, b = merchants(w, posted=0)
    return [voucher((a, -10), (b, 10), (a, 10), (b, -10)), voucher((a, -10), (a, 10)), transfer(a, b, 1)]


def spend_what_came_before(w: World) -> list[Command]:
    a, b = merchants(w, posted=10)
    c = w.account("m:3")
    return [transfer(b, c, 5), transfer(a, b, 5), transfer(b, c, 5), transfer(b, c, 1)]


def the_same_id_twice(w: World) -> list[Command]:
    a, b = merchants(w)
    id_ = new_id()
    return [transfer(a, b, 1, id_=id_), transfer(a, b, 1, id_=id_), transfer(a, b, 2, id_=id_)]


def a_refused_id_again(w: World) -> list[Command]:
    a, b = merchants(w, posted=0)
    bank = w.account("bank", "bank")
    first = transfer(a, b, 1)
    return [first, transfer(bank, a, 1), transfer(a, b, 1, id_=first.id), transfer(a, b, 1)]


VOUCHERS = [
    # seen before
    Row("seen before with other content", ["voucher-id-reused"], seen_with_other_content),
    Row("seen before with the same content is a replay", ["posted"], seen_with_the_same_content),
    Row("seen before and refused stays refused", ["insufficient-funds"], seen_and_refused),
    Row("one id three times in a batch", ["posted", "posted", "voucher-id-reused"], the_same_id_twice),
    Row(
        "a refused id stays refused",
        ["insufficient-funds", "posted", "insufficient-funds", "posted"],
        a_refused_id_again,
    ),
    # shape
    Row(
        "debits and credits differ",
        ["voucher-unbalanced"],
        lambda w: [voucher(*zip(merchants(w), (-1, 2), strict=False))],
    ),
    # existence
    Row("no such account", ["account-not-found"], lambda w: [voucher(unknown="m:none")]),
    Row("no such hold", ["hold-not-found"], capture_of_no_hold),
    # status
    Row("a debit of a closed account", ["account-closed"], with_status(Status.CLOSED, "debit")),
    Row("a credit of a closed account", ["account-closed"], with_status(Status.CLOSED, "credit")),
    Row("a debit of an account frozen for debits", ["account-frozen"], with_status(Status.FROZEN_DEBITS, "debit")),
    Row("a credit of an account frozen for debits", ["posted"], with_status(Status.FROZEN_DEBITS, "credit")),
    Row("a credit that an asset frozen for debits does not cover", ["insufficient-funds"], repaid_more_than_owed),
    Row("a debit of an account frozen for all", ["account-frozen"], with_status(Status.FROZEN_ALL, "debit")),
    Row("a credit of an account frozen for all", ["account-frozen"], with_status(Status.FROZEN_ALL, "credit")),
    Row("a debit of a row that did not verify", ["account-frozen"], with_status(Status.FROZEN_INTEGRITY, "debit")),
    Row("a credit of a row that did not verify", ["account-frozen"], with_status(Status.FROZEN_INTEGRITY, "credit")),
    Row("a captured hold", ["hold-captured"], of_hold(HoldStatus.CAPTURED)),
    Row("a released hold", ["hold-released"], of_hold(HoldStatus.RELEASED)),
    Row("an expired hold", ["hold-expired"], of_hold(HoldStatus.EXPIRED)),
    Row("a hold whose time is up this very moment", ["hold-expired"], of_hold(HoldStatus.OPEN, expires_at_us=NOW_US)),
    Row("a hold whose time is up in a microsecond", ["posted"], of_hold(HoldStatus.OPEN, expires_at_us=NOW_US + 1)),
    Row("a hold that was refused", ["hold-refused"], of_hold(HoldStatus.REFUSED)),
    Row("a second capture", ["posted", "hold-captured"], capture_twice),
    Row("a second reversal", ["posted", "voucher-already-reversed"], reverse_twice),
    # agreement
    Row("two currencies", ["currency-mismatch"], two_currencies),
    Row("a capture of all that is held", ["posted"], of_hold(HoldStatus.OPEN)),
    Row("a capture of a part", ["posted"], of_hold(HoldStatus.OPEN, amount=1)),
    Row("a capture beyond what is held", ["hold-exceeded"], of_hold(HoldStatus.OPEN, amount=11)),
    Row("a capture from another account", ["hold-exceeded"], capture_of_another_account),
    Row("a capture that credits the held account", ["hold-exceeded"], capture_that_credits_its_account),
    # funds
    Row("all that is available", ["posted"], pays(100, 100)),
    Row("one more than is available", ["insufficient-funds"], pays(100, 101)),
    Row("all but what is held", ["posted"], pays(100, 40, held=60)),
    Row("one of what is held", ["insufficient-funds"], pays(100, 41, held=60)),
    Row("pending money is bounded too", ["insufficient-funds"], pays(100, 101, "merchant_pending")),
    Row("a receivable gives what it has", ["posted"], pays(100, 100, "receivable")),
    Row("a receivable gives no more", ["insufficient-funds"], pays(100, 101, "receivable")),
    Row("a bank may go below zero", ["posted"], pays(0, 1, "bank")),
    Row("fee income may go below zero", ["posted"], pays(0, 1, "fee_income")),
    Row("an expense may go below zero", ["posted"], pays(0, 1, "channel_expense")),
    Row("money in transit may go below zero", ["posted"], pays(0, 1, "payout_transit")),
    Row("a credit up to the edge", ["posted"], near_the_edge(10)),
    Row("a credit beyond the edge", ["balance-out-of-range"], near_the_edge(11)),
    Row("a debit up to the edge", ["posted"], near_the_edge_below(10)),
    Row("a debit beyond the edge", ["balance-out-of-range"], near_the_edge_below(11)),
    Row("a credit of what is short", ["posted", "posted", "insufficient-funds"], credits_of_what_is_short),
    Row("each of three lines counts", ["insufficient-funds", "posted"], the_third_takes_too_much),
    Row("a capture when all money is held", ["posted"], capture_with_all_money_held),
    Row("a capture frees the rest", ["posted", "posted", "insufficient-funds"], capture_beside_a_debit_of_the_rest),
    Row("a reversal of what was spent", ["insufficient-funds"], reverse_what_was_spent),
    Row("only the net of a voucher counts", ["posted", "posted", "insufficient-funds"], give_and_take_in_one_voucher),
    Row(
        "each sees what the ones before left",
        ["insufficient-funds", "posted", "posted", "insufficient-funds"],
        spend_what_came_before,
    ),
]


# --- Holds ----------------------------------------------------------------------------------------------------------


def place(
    amount: int = 10, *, expires_at_us: int = 0, type_: str = "merchant_available", **account: object
) -> Commands:
    def commands(w: World) -> list[Command]:
        a = w.account("m:1", type_, **{"posted": 100, **account})
        return [PlaceHold("h", a, amount, expires_at_us, "dev")]

    return commands


def place_again(amount: int, status: HoldStatus, refusal: Refusal | None = None) -> Commands:
    def commands(w: World) -> list[Command]:
        a = w.account("m:1", posted=100)
        w.hold("h", a, 10, status, refusal=refusal)
        return [PlaceHold("h", a, amount, 0, "dev")]

    return commands


def place_on_another_account(w: World) -> list[Command]:
    a, b = merchants(w)
    w.hold("h", a, 10)
    return [PlaceHold("h", b, 10, 0, "dev")]


def place_two(w: World) -> list[Command]:
    a = w.account("m:1", posted=10)
    return [
        PlaceHold("h:1", a, 6, 0, "dev"),
        PlaceHold("h:2", a, 5, 0, "dev"),
        PlaceHold("h:3", a, 4, 0, "dev"),
        PlaceHold("h:2", a, 5, 0, "dev"),
    ]


def hold_then_pay(w: World) -> list[Command]:
    a, b = merchants(w, posted=10)
    return [PlaceHold("h", a, 6, 0, "dev"), transfer(a, b, 5), transfer(a, b, 4)]


def end(status: HoldStatus, expires_at_us: int = 0, how: Callable = release) -> Commands:
    def commands(w: World) -> list[Command]:
        a = w.account("m:1", posted=100)
        return [how(w.hold("h", a, 10, status, expires_at_us))]

    return commands


def release_twice_then_pay(w: World) -> list[Command]:
    a, b = merchants(w, posted=10)
    hold = w.hold("h", a, 10)
    return [transfer(a, b, 1), release(hold), release(hold), transfer(a, b, 10)]


def end_on_a_frozen_account(how: Callable) -> Commands:
    def commands(w: World) -> list[Command]:
        a = w.account("m:1", posted=100, status=Status.FROZEN_ALL)
        return [how(w.hold("h", a, 10, expires_at_us=NOW_US if how is expire else 0))]

    return commands


HOLDS = [
    Row("the same hold again", ["placed"], place_again(10, HoldStatus.OPEN)),
    Row("the same hold again, after it ended", ["placed"], place_again(10, HoldStatus.RELEASED)),
    Row("another hold with the id", ["hold-id-reused"], place_again(11, HoldStatus.OPEN)),
    Row("the id on another account", ["hold-id-reused"], place_on_another_account),
    Row(
        "a refused hold again",
        ["insufficient-funds"],
        place_again(10, HoldStatus.REFUSED, Refusal(Code.INSUFFICIENT_FUNDS, "then")),
    ),
    Row("an expiry of now", ["hold-expiry-past"], place(expires_at_us=NOW_US)),
    Row("the earliest expiry that there is", ["hold-expiry-past"], place(expires_at_us=1)),
    Row("an expiry in a microsecond", ["placed"], place(expires_at_us=NOW_US + 1)),
    Row("a platform account", ["hold-on-platform-account"], place(type_="bank")),
    Row("a closed account", ["account-closed"], place(posted=0, status=Status.CLOSED)),
    Row("an account frozen for debits", ["account-frozen"], place(status=Status.FROZEN_DEBITS)),
    Row("an account frozen for all", ["account-frozen"], place(status=Status.FROZEN_ALL)),
    Row("a frozen platform account", ["account-frozen"], place(type_="bank", status=Status.FROZEN_ALL)),
    Row("more than a frozen account has", ["account-frozen"], place(101, status=Status.FROZEN_ALL)),
    Row(
        "more than a receivable has that is frozen for debits",
        ["account-frozen"],
        place(101, type_="receivable", status=Status.FROZEN_DEBITS),
    ),
    Row("all that is available", ["placed"], place(100)),
    Row("one more than is available", ["insufficient-funds"], place(101)),
    Row("one more than is left by other holds", ["insufficient-funds"], place(41, held=60)),
    Row("a receivable has its own direction", ["placed"], place(100, type_="receivable")),
    Row("each hold counts", ["placed", "insufficient-funds", "placed", "insufficient-funds"], place_two),
    Row("what is held cannot be paid", ["placed", "insufficient-funds", "posted"], hold_then_pay),
    Row("release", ["ended"], end(HoldStatus.OPEN)),
    Row("release again", ["ended"], end(HoldStatus.RELEASED)),
    Row("release what was captured", ["hold-captured"], end(HoldStatus.CAPTURED)),
    Row("release what has expired", ["hold-expired"], end(HoldStatus.EXPIRED)),
    Row("release what is about to expire", ["hold-expired"], end(HoldStatus.OPEN, NOW_US)),
    Row("release what was refused", ["hold-refused"], end(HoldStatus.REFUSED)),
    Row("released money is free once", ["insufficient-funds", "ended", "ended", "posted"], release_twice_then_pay),
    Row("expire in time", ["ended"], end(HoldStatus.OPEN, NOW_US, expire)),
    Row("expire too early", ["unchanged"], end(HoldStatus.OPEN, NOW_US + 1, expire)),
    Row("expire what was released", ["unchanged"], end(HoldStatus.RELEASED, NOW_US, expire)),
    Row("release on a frozen account", ["ended"], end_on_a_frozen_account(release)),
    Row("expire on a frozen account", ["ended"], end_on_a_frozen_account(expire)),
]


# --- Statuses -------------------------------------------------------------------------------------------------------

OPEN, DEBITS, ALL, CLOSED, INTEGRITY, _ = Status
STATUSES = [
    # from, to, result
    (OPEN, OPEN, "unchanged"),
    (OPEN, DEBITS, "changed"),
    (OPEN, ALL, "changed"),
    (OPEN, CLOSED, "changed"),
    (OPEN, INTEGRITY, "changed"),
    (DEBITS, OPEN, "changed"),
    (DEBITS, DEBITS, "unchanged"),
    (DEBITS, ALL, "changed"),
    (DEBITS, CLOSED, "changed"),
    (ALL, OPEN, "changed"),
    (ALL, DEBITS, "changed"),
    (ALL, CLOSED, "changed"),
    (CLOSED, OPEN, "account-closed"),
    (CLOSED, DEBITS, "account-closed"),
    (CLOSED, ALL, "account-closed"),
    (CLOSED, CLOSED, "unchanged"),
    (INTEGRITY, OPEN, "account-frozen"),
    (INTEGRITY, DEBITS, "account-frozen"),
    (INTEGRITY, ALL, "account-frozen"),
    (INTEGRITY, CLOSED, "account-frozen"),
]


def status_row(before: Status, after: Status, expected: str) -> Row:
    name = f"{before.name} to {after.name}"
    return Row(name, [expected], lambda w: [SetStatus(w.account("m:1", status=before), after, "why", "tests")])


def close_with(**account: int) -> Commands:
    return lambda w: [SetStatus(w.account("m:1", **account), Status.CLOSED, "why", "tests")]


CHANGES = [
    *(status_row(*row) for row in STATUSES),
    Row("close with money", ["account-not-empty"], close_with(posted=1)),
    Row("close with a hold", ["account-not-empty"], close_with(posted=1, held=1)),
]


# --- Atomic groups --------------------------------------------------------------------------------------------------


def group_that_fits(w: World) -> list[Command]:
    a, b = merchants(w, posted=10)
    return [AtomicGroup([transfer(a, b, 4), transfer(a, b, 6)])]


def group_beyond_funds(w: World) -> list[Command]:
    a, b = merchants(w, posted=10)
    return [AtomicGroup([transfer(a, b, 4), transfer(a, b, 7), transfer(b, a, 1)]), transfer(a, b, 10)]


def group_with_an_unbalanced_one(w: World) -> list[Command]:
    a, b = merchants(w, posted=10)
    return [AtomicGroup([transfer(a, b, 4), voucher((a, -1), (b, 2))])]


def group_after_a_voucher(w: World) -> list[Command]:
    a, b = merchants(w, posted=10)
    return [transfer(a, b, 6), AtomicGroup([transfer(a, b, 4), transfer(a, b, 1)]), transfer(a, b, 4)]


GROUPS = [
    Row("all of them fit", ["posted+posted"], group_that_fits),
    Row("one does not fit", ["batch-aborted+insufficient-funds+batch-aborted", "posted"], group_beyond_funds),
    Row("one is unbalanced", ["batch-aborted+voucher-unbalanced"], group_with_an_unbalanced_one),
    Row(
        "what was posted before stands", ["posted", "batch-aborted+insufficient-funds", "posted"], group_after_a_voucher
    ),
]

TABLES = {"voucher": VOUCHERS, "hold": HOLDS, "status": CHANGES, "group": GROUPS}
ROWS = [pytest.param(row, id=f"{table}: {row.name}") for table, rows in TABLES.items() for row in rows]


def said(command: Command, outcome: object) -> str:
    if outcome.refusal is not None:
        return code(outcome)
    if isinstance(command, AtomicGroup):
        return "+".join(codes(outcome.parts))
    if isinstance(command, PlaceHold):
        return "placed"
    if isinstance(command, EndHold):
        return "unchanged" if command.expire and outcome.hold.ended_at_us != NOW_US else "ended"
    if isinstance(command, SetStatus):
        return "unchanged" if outcome.replay else "changed"
    return "posted"


@pytest.mark.parametrize("row", ROWS)
def test_decide_answers_as_the_table_says(row: Row) -> None:
    world = World()
    commands = row.commands(world)
    outcomes = world.decide(*commands)
    assert [said(command, outcome) for command, outcome in zip(commands, outcomes, strict=True)] == row.expects


@pytest.mark.parametrize("row", ROWS)
def test_a_refused_command_changes_no_balance_and_touches_no_neighbour(row: Row) -> None:
    """Each command of a row is decided between two payments of other accounts. A refused command has no effect."""
    world = World()
    commands = row.commands(world)
    bank, stranger = world.account("bank:s", "bank"), world.account("m:stranger")
    strangers = 0
    for command, expected in zip(commands, row.expects, strict=True):
        before = world.balances()
        outcomes = world.decide(transfer(bank, stranger, 1), command, transfer(stranger, bank, 1))
        assert codes([outcomes[0], outcomes[2]]) == ["posted", "posted"]
        strangers += 2
        assert world.sub(stranger).posted == 0
        assert world.sub(stranger).seq == 5 + strangers
        after = world.balances()
        for name in (bank.id, stranger.id):
            del before[name], after[name]
        if expected not in ("posted", "placed", "ended", "changed", "posted+posted"):
            assert after == before


@pytest.mark.parametrize("row", [r for r in ROWS if r.values[0] in VOUCHERS])
def test_a_refusal_is_recorded_if_and_only_if_it_is_final(row: Row) -> None:
    world = World()
    commands = row.commands(world)
    known = set(world.batch.vouchers)
    outcomes = world.decide(*commands)
    expected = [
        command.id
        for command, outcome in zip(commands, outcomes, strict=True)
        if not outcome.replay and (outcome.refusal is None or outcome.refusal.final) and command.key not in known
    ]
    assert world.new_ids() == expected
    assert {record.id for _, record in world.batch.new_vouchers if record.refusal is not None} == {
        command.id
        for command, outcome in zip(commands, outcomes, strict=True)
        if outcome.refusal is not None and outcome.refusal.code in FINAL and command.key not in known
    }


SAID_BY_THE_API_ONLY = {Code.VOUCHER_NOT_POSTED}  # tests/app/test_vouchers.py: a refused voucher cannot be reversed


def test_every_refusal_is_produced_by_some_row() -> None:
    produced = {
        word for rows in TABLES.values() for row in rows for expected in row.expects for word in expected.split("+")
    }
    assert set(Code) - produced == SAID_BY_THE_API_ONLY


# --- Precedence -----------------------------------------------------------------------------------------------------

GROUP_OF = {
    "seen before": (Code.VOUCHER_ID_REUSED, Code.HOLD_ID_REUSED),
    "shape": (Code.VOUCHER_UNBALANCED, Code.HOLD_EXPIRY_PAST),
    "existence": (Code.ACCOUNT_NOT_FOUND, Code.HOLD_NOT_FOUND, Code.VOUCHER_NOT_POSTED),
    "status": (
        Code.ACCOUNT_CLOSED,
        Code.ACCOUNT_FROZEN,
        Code.HOLD_CAPTURED,
        Code.HOLD_RELEASED,
        Code.HOLD_EXPIRED,
        Code.HOLD_REFUSED,
        Code.VOUCHER_ALREADY_REVERSED,
    ),
    "agreement": (Code.HOLD_ON_PLATFORM_ACCOUNT, Code.CURRENCY_MISMATCH, Code.HOLD_EXCEEDED),
    "funds": (Code.ACCOUNT_NOT_EMPTY, Code.BALANCE_OUT_OF_RANGE, Code.INSUFFICIENT_FUNDS),
}
RANK = {code_: rank for rank, codes_ in enumerate(GROUP_OF.values()) for code_ in codes_}


class Troubled:
    """A voucher that may violate several rules at the same time."""

    def __init__(self) -> None:
        self.debit: dict[str, object] = {"posted": 100}
        self.credit: dict[str, object] = {}
        self.amount, self.credit_amount = 10, 10
        self.seen = self.reversed = False
        self.unknown: str | None = None
        self.hold: dict[str, object] | None = None
        self.hold_id: str | None = None

    def commands(self, w: World) -> list[Command]:
        a, b = w.account("m:1", **self.debit), w.account("m:2", **self.credit)
        hold = None
        if self.hold is not None and self.hold_id is None:
            hold = w.hold("h", a, **{"amount": 10, **self.hold})
        original = new_id()
        if self.reversed:
            w.batch.reversed_by["dev", original] = new_id()
        lines = [(a, -self.amount), (b, self.credit_amount)]
        more = {"hold": hold, "hold_id": self.hold_id, "reverses": original if self.reversed else None}
        asked = voucher(*lines, unknown=self.unknown, **more)
        if self.seen:
            w.record(transfer(b, a, 1, id_=asked.id))
        return [asked]


def trouble(code_: Code) -> Callable[[Troubled], None]:
    def hold(t: Troubled, **more: object) -> None:
        t.hold = {**(t.hold or {}), **more}

    return {
        Code.VOUCHER_ID_REUSED: lambda t: setattr(t, "seen", True),
        Code.VOUCHER_UNBALANCED: lambda t: setattr(t, "credit_amount", t.credit_amount + 1),
        Code.ACCOUNT_NOT_FOUND: lambda t: setattr(t, "unknown", "m:none"),
        Code.HOLD_NOT_FOUND: lambda t: setattr(t, "hold_id", "nowhere"),
        Code.ACCOUNT_CLOSED: lambda t: t.debit.update(status=Status.CLOSED),
        Code.ACCOUNT_FROZEN: lambda t: t.debit.update(status=Status.FROZEN_DEBITS),
        Code.HOLD_CAPTURED: lambda t: hold(t, status=HoldStatus.CAPTURED),
        Code.HOLD_RELEASED: lambda t: hold(t, status=HoldStatus.RELEASED),
        Code.HOLD_EXPIRED: lambda t: hold(t, status=HoldStatus.EXPIRED),
        Code.HOLD_REFUSED: lambda t: hold(t, status=HoldStatus.REFUSED),
        Code.VOUCHER_ALREADY_REVERSED: lambda t: setattr(t, "reversed", True),
        Code.CURRENCY_MISMATCH: lambda t: t.credit.update(currency="USD"),
        Code.HOLD_EXCEEDED: lambda t: hold(t, amount=1),
        Code.BALANCE_OUT_OF_RANGE: lambda t: t.credit.update(posted=BALANCE_MAX),
        Code.INSUFFICIENT_FUNDS: lambda t: t.debit.update(posted=1),
    }[code_]


TROUBLES = [
    Code.VOUCHER_ID_REUSED,
    Code.VOUCHER_UNBALANCED,
    *(
        c
        for c in RANK
        if RANK[c] >= 2 and c not in (Code.VOUCHER_NOT_POSTED, Code.HOLD_ON_PLATFORM_ACCOUNT, Code.ACCOUNT_NOT_EMPTY)
    ),
]
PAIRS = [(a, b) for a, b in itertools.permutations(TROUBLES, 2) if RANK[a] < RANK[b]]


@pytest.mark.parametrize("code_", TROUBLES)
def test_each_trouble_alone_is_reported(code_: Code) -> None:
    troubled = Troubled()
    trouble(code_)(troubled)
    world = World()
    assert codes(world.decide(*troubled.commands(world))) == [code_]


@pytest.mark.parametrize(("first", "second"), PAIRS, ids=str)
def test_of_two_troubles_the_first_in_order_is_reported(first: Code, second: Code) -> None:
    troubled = Troubled()
    trouble(second)(troubled)
    trouble(first)(troubled)
    world = World()
    assert codes(world.decide(*troubled.commands(world))) == [first]


def test_the_codes_are_listed_in_precedence_order() -> None:
    ranks = [RANK[code_] for code_ in Code if code_ is not Code.BATCH_ABORTED]
    assert ranks == sorted(ranks)
