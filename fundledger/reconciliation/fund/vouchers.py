"""Reconciliation of the fund service: compares its orders with vouchers of the ledger, one by one and in both
directions.

The ledger snapshot is taken after the fund snapshot, while both services run. So if an order is posted in the fund
snapshot, its voucher must be in the ledger. The fund snapshot may not explain a voucher, because the order of the
voucher was created or posted later. An order is inserted before its voucher is requested, so this order exists when the
voucher is read. The order is looked up in the current data.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final, NamedTuple, cast
from uuid import UUID

import asyncpg

from fundledger.fund.model.accounts import HOME_CURRENCY
from fundledger.fund.model.flows import (
    PARK,
    RULES,
    Ending,
    Entry,
    end_entries_of,
    end_voucher_type,
    entries_of,
    parked_entries_of,
    voucher_type,
)
from fundledger.fund.model.order import Kind, Order, State, voucher_id
from fundledger.fund.model.transitions import ENDED, UNAPPROVED, UNRESERVED, is_posted
from fundledger.reconciliation.evidence import Accounts, numbers_in, pairs
from fundledger.reconciliation.fund.orders import named, order_of
from fundledger.reconciliation.reading import Names, Rows
from fundledger.reconciliation.report import READABLE, Check, Fund, Total, described, printable

REFERENCE: Final = "fund:"
REVERSAL: Final = RULES[Kind.REVERSAL].voucher_type
KINDS: Final[dict[str, str]] = {rules.voucher_type: kind for kind, rules in RULES.items()}
CHUNK: Final = 5000

Late = Callable[[Sequence[UUID], Sequence[UUID]], Awaitable[list[asyncpg.Record]]]
"""A function that looks up orders in the current data. Its arguments are ids of orders, and ids of orders whose
reversals are looked up, too.
"""


class Posted(NamedTuple):
    """A voucher of the ledger. `credited`: the amount by account id, positive for a credit and negative for a debit."""

    id: UUID
    type: str
    reference: str | None
    reverses: UUID | None
    of_reference: str | None
    credited: dict[str, int]
    currency: str

    @property
    def moved(self) -> int:
        return sum(amount for amount in self.credited.values() if amount > 0)

    def __str__(self) -> str:
        return f"{self.type} of {self.reference or 'no order'}: {_shown(self.credited)} {self.currency}"


class Step(NamedTuple):
    """A voucher that an order has or may have. `of_voucher`: for a reversal, the id of the voucher that it reverses.
    `parks`: the voucher has parked the order, and another voucher releases it.
    """

    voucher: UUID
    order: Order
    ending: Ending | None
    of_voucher: UUID | None
    parks: bool = False

    @property
    def is_posted(self) -> bool:
        if self.parks:
            return True
        return is_posted(self.order) if self.ending is None else self.order.state in ENDED

    @property
    def entries(self) -> list[Entry]:
        if self.parks:
            return parked_entries_of(self.order)
        return entries_of(self.order) if self.ending is None else end_entries_of(self.order, self.ending)

    @property
    def type(self) -> str:
        if self.parks:
            return PARK
        return voucher_type(self.order) if self.ending is None else end_voucher_type(self.order.kind, self.ending)


async def compare_vouchers(
    checks: Sequence[Check], totals: Fund, steps: Rows, vouchers: Rows, names: Names, late: Late
) -> None:
    """Compare the vouchers that orders require with the vouchers of the ledger, in one merge pass. Both inputs have to
    be ordered by voucher id. `checks` has one element, to which findings are added.
    """
    (check,) = checks
    comparison = _Comparison(check, totals, late)
    posted = _read(vouchers, names, check)
    row = await anext(steps, None)
    voucher = await anext(posted, None)
    while row is not None or voucher is not None:
        if row is not None and row["step_voucher"] is None:
            check.differs(named(row), READABLE, "its voucher id cannot be derived")
            row = await anext(steps, None)
            continue
        if voucher is None or (row is not None and row["step_voucher"] < voucher.id):
            assert row is not None
            comparison.without_voucher(row)
            row = await anext(steps, None)
        elif row is None or voucher.id < row["step_voucher"]:
            await comparison.unexplained(voucher)
            voucher = await anext(posted, None)
        else:
            await comparison.both(row, voucher)
            row = await anext(steps, None)
            voucher = await anext(posted, None)
    await comparison.look_again()


class _Comparison:
    def __init__(self, check: Check, totals: Fund, late: Late) -> None:
        self.check = check
        self.totals = totals
        self._late = late
        self._waiting: list[Posted] = []

    def without_voucher(self, row: asyncpg.Record) -> None:
        step = self._step(row)
        if step is not None and step.is_posted:
            self.check.differs(_of(step), f"voucher {step.voucher} is posted, the order is {step.order.state}", "none")

    async def unexplained(self, voucher: Posted) -> None:
        """Queue a voucher that the fund snapshot does not explain. `look_again` looks up its order in
        the current data.
        """
        self._waiting.append(voucher)
        if len(self._waiting) >= CHUNK:
            await self.look_again()

    async def both(self, row: asyncpg.Record, voucher: Posted) -> None:
        step = self._step(row)
        if step is None:
            return
        if step.order.state in UNAPPROVED:
            # The order was approved after the fund snapshot, or it was posted without approval.
            await self.unexplained(voucher)
        else:
            self._compare(step, voucher)

    async def look_again(self) -> None:
        """Look up the orders of the queued vouchers in the current data. Every voucher of the fund service must have an
        order.
        """
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        ids = [_order_of(voucher.reference) for voucher in waiting]
        reversed_ = [_order_of(voucher.of_reference) for voucher in waiting if voucher.type == REVERSAL]
        rows = await self._late([id_ for id_ in ids if id_ is not None], [id_ for id_ in reversed_ if id_ is not None])
        known = {step.voucher: step for row in rows for step in _steps_by_now(row)}
        for voucher in waiting:
            step = known.get(voucher.id)
            if step is None:
                self._count(voucher)
                self.check.rows += 1
                self.check.differs(f"voucher {voucher.id}", "an order of the fund service that posts it", str(voucher))
            else:
                self._compare(step, voucher)

    def _step(self, row: asyncpg.Record) -> Step | None:
        """Return the step of a row, or None if the row is invalid. Other checks report the other errors
        of the order.
        """
        self.check.rows += 1
        try:
            order = order_of(row)
            ending = cast("Ending", order.ending) if row["is_end"] else None
            step = Step(row["step_voucher"], order, ending, row["of_voucher"], row["parks"])
            self._count_step(step)
            end = order.end_voucher_id or voucher_id(order.id, "end", order.attempt)
            assert not row["is_end"] or step.voucher == end, "sql/steps.sql makes other ids"
        except Exception as error:
            self.check.differs(named(row), "an order that is valid for its flow", f"none ({described(error)})")
            return None
        return step

    def _compare(self, step: Step, voucher: Posted) -> None:
        self._count(voucher)
        order = step.order
        if order.state in UNRESERVED or (order.state in (State.PARKED, State.CLEARED) and not step.parks):
            self.check.differs(_of(step), f"no voucher, the order is {order.state}", f"voucher {voucher.id}, {voucher}")
        elif order.kind is Kind.REVERSAL:
            if (voucher.type, voucher.reverses) != (REVERSAL, step.of_voucher):
                found = f"{voucher.type} of {voucher.reverses}"
                self.check.differs(_of(step), f"voucher {voucher.id} is the reversal of {step.of_voucher}", found)
        else:
            expected = Posted(
                step.voucher, step.type, f"{REFERENCE}{order.id}", None, None, _credited(step.entries), order.currency
            )
            if voucher != expected:
                self.check.differs(f"{_of(step)}, voucher {voucher.id}", str(expected), str(voucher))

    def _count_step(self, step: Step) -> None:
        order = step.order
        total = self._total(order.kind if step.ending is None and not step.parks else step.type, order.currency)
        total.orders += 1
        if step.is_posted:
            moves = sum(entry.amount for entry in step.entries if entry.side == "debit")
            total.amount += order.amount if order.kind is Kind.REVERSAL else moves
        elif order.state in UNRESERVED - {State.CREATED} or order.state is State.CLEARED:
            total.refused += 1
        else:
            total.in_flight += 1
        if step.ending is None and not step.parks:
            self.totals.orders += 1

    def _count(self, voucher: Posted) -> None:
        total = self._total(KINDS.get(voucher.type, voucher.type), voucher.currency)
        total.vouchers += 1
        total.moved += voucher.moved

    def _total(self, kind: str, currency: str) -> Total:
        name = str(kind) if currency == HOME_CURRENCY else f"{kind}:{currency}"
        return self.totals.by_kind.setdefault(printable(name), Total())


async def _read(vouchers: Rows, names: Names, check: Check) -> AsyncIterator[Posted]:
    """Yield the vouchers of these rows. Account numbers are replaced by account ids."""
    chunk: list[asyncpg.Record] = []
    async for row in vouchers:
        chunk.append(row)
        if len(chunk) == CHUNK:
            for voucher in await _named(chunk, names, check):
                yield voucher
            chunk = []
    for voucher in await _named(chunk, names, check):
        yield voucher


async def _named(chunk: list[asyncpg.Record], names: Names, check: Check) -> list[Posted]:
    accounts = await names(numbers_in(chunk))
    vouchers = []
    for row in chunk:
        try:
            vouchers.append(_posted(row, accounts))
        except Exception as error:
            check.unreadable(f"voucher {row['id']}", error)
    return vouchers


def _posted(row: asyncpg.Record, accounts: Accounts) -> Posted:
    lines = [
        (accounts.get(number, (f"account number {number}", "?")), amount) for number, amount in pairs(row["lines"])
    ]
    currency = "/".join(sorted({currency for (_, currency), _ in lines}))
    credited = _summed((account, amount) for (account, _), amount in lines)
    of = row["reference"], row["reverses"], row["of_reference"]
    return Posted(row["id"], row["type"], *of, credited, currency)


def _steps_by_now(row: asyncpg.Record) -> list[Step]:
    try:
        order = order_of(row)
    except (ValueError, TypeError):
        return []
    steps = [Step(order.voucher_id, order, None, row["of_voucher"])]
    if order.parked_voucher_id is not None:
        steps.append(Step(order.parked_voucher_id, order, None, None, parks=True))
    if order.ending is not None:
        end = order.end_voucher_id or voucher_id(order.id, "end", order.attempt)
        steps.append(Step(end, order, cast("Ending", order.ending), None))
    return steps


def _order_of(reference: str | None) -> UUID | None:
    try:
        return UUID((reference or "").removeprefix(REFERENCE))
    except ValueError:
        return None


def _credited(entries: list[Entry]) -> dict[str, int]:
    return _summed((entry.account, entry.amount if entry.side == "credit" else -entry.amount) for entry in entries)


def _summed(moves: Any) -> dict[str, int]:
    credited: dict[str, int] = {}
    for account, amount in moves:
        credited[account] = credited.get(account, 0) + amount
    return credited


def _shown(credited: dict[str, int]) -> str:
    return ", ".join(f"{account} {amount:+}" for account, amount in credited.items())


def _of(step: Step) -> str:
    order = step.order
    end = "" if step.ending is None else f", {step.ending}"
    return f"order {order.id} ({order.kind} {order.order_no} of {order.merchant}{end})"
