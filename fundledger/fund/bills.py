"""Bills of the fund service: the movements of a merchant's accounts in a period, with the orders that caused them.

A bill is made from the statements of the merchant's three accounts in the account service, so its lines add up to the
movement of these accounts. The orders add the fee, the fee rule and the order number. A voucher that moves several of
the accounts has one line. Lines are in the order of time. Within each account they are in the order of its statement.

A page begins at a position in each statement: the cursor of a page of the statement, and the number of its lines that
earlier pages of the bill show. Each page reads its own opening balances, so no balance is taken from a cursor.
"""

import asyncio
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import msgspec

from fundledger.client.types import StatementEntry
from fundledger.fund.account_gateway import REFERENCE, AccountGateway, BadCursor
from fundledger.fund.model import accounts
from fundledger.fund.model.flows import moved
from fundledger.fund.model.order import Order, has_end, voucher_id
from fundledger.fund.model.split import of_merchant
from fundledger.fund.store.macs import OrderMacs, Tampered
from fundledger.fund.store.orders import Pool, read_orders

CURSOR: Final = r"^[0-9]{1,4}\.[A-Za-z0-9_-]*(\.[0-9]{1,4}\.[A-Za-z0-9_-]*){2}$"
FETCH_MAX: Final = 1000
"""The maximum number of lines that one request for a statement returns."""
AHEAD: Final = 200
"""The number of lines that are read beyond a page, to find all lines of a voucher. If an account has more lines of one
time, a voucher that moves several accounts may have two lines.
"""
FETCHES_MAX: Final = 4
"""The maximum number of requests for one statement and one page of the bill."""
_MICROSECOND: Final = timedelta(microseconds=1)
_is_cursor = re.compile(CURSOR).fullmatch


class Amounts(msgspec.Struct, frozen=True):
    """An amount for each account of a merchant, in the normal direction of the account: a positive `receivable` is a
    debt of the merchant.
    """

    available: int
    pending: int
    receivable: int


class BillLine(msgspec.Struct, frozen=True):
    """A movement of a merchant's accounts. `change`: what the voucher moved. `balance`: the balances after it.

    `order`: the order that caused the movement, None if no order did, or if the order does not match its MAC. A split
    order has only the part of the merchant. `fee` is positive if it was charged, and negative if it was returned. `tax`
    is the part of `fee` that is tax.
    """

    posted_at: datetime
    voucher_id: UUID
    type: str
    order: Order | None
    fee: int
    tax: int
    change: Amounts
    balance: Amounts


class BillPage(msgspec.Struct, frozen=True):
    """A page of a bill. `opening` and `closing`: the balances at the beginning and at the end of the period. In a
    period that has not ended, `closing` has the balances of now. `unverified`: ids of orders that do not match their
    MAC. `cursor`: None on the last page.
    """

    opening: Amounts
    closing: Amounts
    lines: list[BillLine]
    unverified: list[UUID]
    cursor: str | None


class _Statement:
    """The lines of one account that follow a position: a page of its statement, and the number of lines to leave out.

    `balance`: the balance before the next line. `following`: the cursor after the last line, None at the end.
    """

    def __init__(self, normal: int, token: str, skip: int) -> None:
        self.normal = normal
        self.following: str | None = None
        self.balance = 0
        self._begin = token, skip
        self._lines: list[StatementEntry] = []
        self._next = 0
        self._pages: list[tuple[str, int]] = []
        self._last: dict[tuple[datetime, UUID | None], int] = {}

    async def read(
        self, gateway: AccountGateway, account: str, from_: datetime, to: datetime, limit: int, closing: int
    ) -> None:
        """Read `limit` lines and AHEAD more, if the statement has as many. Raises BadCursor, GatewayFault,
        Unverified.
        """
        token, skip = self._begin
        for _ in range(FETCHES_MAX):
            most = min(FETCH_MAX, skip + limit + AHEAD)
            entries, self.following = await gateway.statement(account, from_, to, token or None, most)
            self._pages.append((token, len(self._lines) - skip))
            self._lines += entries[skip:]
            if self.following is None or len(self._lines) >= limit + AHEAD:
                break
            token, skip = self.following, max(0, skip - len(entries))
        self._last = {(line.posted_at, line.voucher_id): i for i, line in enumerate(self._lines)}
        head = self.head
        self.balance = closing if head is None else head.balance_after - self.change(head)

    @property
    def head(self) -> StatementEntry | None:
        return self._lines[self._next] if self._next < len(self._lines) else None

    @property
    def is_unread(self) -> bool:
        """Whether more lines follow that were not read."""
        return self._next == len(self._lines) and self.following is not None

    def may_continue(self, at: datetime) -> bool:
        """Return whether lines of the time `at` may follow that were not read."""
        return self.following is not None and bool(self._lines) and self._lines[-1].posted_at <= at

    def change(self, line: StatementEntry) -> int:
        return self.normal * (line.amount if line.side == "credit" else -line.amount)

    def has_later(self, line: StatementEntry) -> bool:
        """Return whether a line after the next one belongs to the voucher of `line`."""
        return self._last.get((line.posted_at, line.voucher_id), -1) > self._next

    def take(self, line: StatementEntry) -> int:
        """Return the change by the voucher of `line`, and go on to the line after it: 0 if it is not the next line."""
        head = self.head
        if head is None or (head.posted_at, head.voucher_id) != (line.posted_at, line.voucher_id):
            return 0
        self._next += 1
        self.balance = head.balance_after
        return self.change(head)

    def position(self) -> str:
        """Return the position of the next line, for a cursor."""
        if self.is_unread:
            return f"0.{self.following}"
        token, begin = next(page for page in reversed(self._pages) if page[1] <= self._next)
        return f"{self._next - begin}.{token}"


class _Movement(msgspec.Struct, frozen=True):
    line: StatementEntry
    change: Amounts
    balance: Amounts


async def read_bill(
    pool: Pool,
    gateway: AccountGateway,
    macs: OrderMacs,
    merchant: str,
    begins: datetime,
    ends: datetime,
    cursor: str | None,
    limit: int,
) -> BillPage:
    """Return a page of at most `limit` lines of the bill of a merchant. `ends` is exclusive.

    A page may be short or empty although more pages follow. Raises BadCursor, GatewayFault, Unverified, and what
    asyncpg raises. A retry is safe.
    """
    names = [accounts.available(merchant), accounts.pending(merchant), accounts.receivable(merchant)]
    statements = _statements(cursor)
    to = ends - _MICROSECOND
    # The closing balances are read first. So each entry that they contain is found in the statements.
    closing = Amounts(*await asyncio.gather(*(gateway.balance_at(name, to) for name in names)))
    opening = Amounts(*await asyncio.gather(*(gateway.balance_at(name, begins - _MICROSECOND) for name in names)))
    await asyncio.gather(
        *(
            statement.read(gateway, name, begins, to, limit, balance)
            for statement, name, balance in zip(statements, names, msgspec.structs.astuple(closing), strict=True)
        )
    )
    movements = _merge(statements, limit)
    orders, unverified = await _orders(pool, macs, movements)
    is_last = all(statement.head is None and not statement.is_unread for statement in statements)
    return BillPage(
        opening,
        Amounts(*(each.balance for each in statements)) if is_last else closing,
        [_line(movement, merchant, orders) for movement in movements],
        unverified,
        None if is_last else ".".join(statement.position() for statement in statements),
    )


def _statements(cursor: str | None) -> list[_Statement]:
    if cursor is not None and not _is_cursor(cursor):
        raise BadCursor("cursor must be the next_cursor of the previous page")
    parts = ["0", "", "0", "", "0", ""] if cursor is None else cursor.split(".")
    # A debit of the receivable account raises the debt.
    return [_Statement(normal, parts[2 * i + 1], int(parts[2 * i])) for i, normal in enumerate((1, 1, -1))]


def _merge(statements: Sequence[_Statement], limit: int) -> list[_Movement]:
    found: list[_Movement] = []
    while len(found) < limit and not any(statement.is_unread for statement in statements):
        heads = [statement.head for statement in statements if statement.head is not None]
        if not heads:
            break
        earliest = min(head.posted_at for head in heads)
        if found and any(statement.may_continue(earliest) for statement in statements):
            # The next page reads the other lines of this time.
            break
        first = [head for head in heads if head.posted_at == earliest]
        # Lines of one time have another order in each statement, if an account has several slots. A voucher waits until
        # all its lines are next.
        ready = [head for head in first if not any(statement.has_later(head) for statement in statements)]
        line = (ready or first)[0]
        change = Amounts(*[statement.take(line) for statement in statements])
        found.append(_Movement(line, change, Amounts(*[statement.balance for statement in statements])))
    return found


async def _orders(pool: Pool, macs: OrderMacs, movements: Sequence[_Movement]) -> tuple[dict[UUID, Order], list[UUID]]:
    """Return the orders of the movements by id, and the ids of those that do not match their MAC."""
    ids = [id_ for id_ in dict.fromkeys(_order_id(movement.line) for movement in movements) if id_ is not None]
    found: dict[UUID, Order] = await read_orders(pool, ids) if ids else {}
    unverified = []
    for id_, order in found.items():
        try:
            macs.check(order)
        except Tampered:
            unverified.append(id_)
    return {id_: order for id_, order in found.items() if id_ not in unverified}, unverified


def _order_id(line: StatementEntry) -> UUID | None:
    if line.reference is None or not line.reference.startswith(REFERENCE):
        return None
    try:
        return UUID(line.reference.removeprefix(REFERENCE))
    except ValueError:
        return None


def _line(movement: _Movement, merchant: str, orders: dict[UUID, Order]) -> BillLine:
    line, id_ = movement.line, _order_id(movement.line)
    order, ending = orders.get(id_) if id_ is not None else None, None
    if order is not None and line.voucher_id != order.voucher_id:
        ending = order.ending
        end = order.end_voucher_id or voucher_id(order.id, "end", order.attempt)
        if not has_end(order) or ending is None or line.voucher_id != end:
            # The reference names an order, but the voucher is not one of its vouchers.
            order = None
    order = None if order is None else of_merchant(order, merchant)
    charged = (0, 0) if order is None else _fee(order, ending, merchant, movement.change)
    assert line.voucher_id is not None
    moves = movement.change, movement.balance
    return BillLine(line.posted_at, line.voucher_id, line.type or "", order, *charged, *moves)


def _fee(order: Order, ending: Any, merchant: str, change: Amounts) -> tuple[int, int]:
    """Return the fee of a movement, and the tax in it. If the lines of a voucher have different times, one of its
    movements has the fee: the movement of the first account that the voucher moves.
    """
    amounts = moved(order, ending)
    names = {name: getattr(accounts, name)(merchant) for name in Amounts.__struct_fields__}
    first = next((name for name, account in names.items() if amounts.get(account)), None)
    if first is None or not getattr(change, first):
        return 0, 0
    tax = amounts.get(accounts.tax_output(order.currency), 0)
    return amounts.get(accounts.fee_income(order.currency), 0) + tax, tax
