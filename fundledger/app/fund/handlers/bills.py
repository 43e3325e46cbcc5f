"""HTTP handler of the fund service for the bill of a merchant. `routes/bills.py` declares its route."""

from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Final

import msgspec

from fundledger.app.fund.answers import structs as answers
from fundledger.app.fund.answers.problems import unverified_items
from fundledger.app.fund.handlers.lists import date_of
from fundledger.app.fund.requests.lookup import merchant_id
from fundledger.app.fund.service import FundService
from fundledger.app.http.bodies.spreadsheet import csv_page, wants_csv
from fundledger.app.http.problems import malformed, not_found, unverified
from fundledger.app.http.query import number
from fundledger.app.http.routing import Call
from fundledger.app.http.wire.reply import Reply, encode
from fundledger.faults import Unavailable
from fundledger.fund.account_gateway import BadCursor, GatewayFault, Unverified
from fundledger.fund.bills import Amounts, BillLine, BillPage, read_bill
from fundledger.fund.model.days import Days, after_month, day_after
from fundledger.json_values import time_text

LIMIT_DEFAULT: Final = 100
LIMIT_MAX: Final = 500
_ACCOUNTS: Final = Amounts.__struct_fields__
_OF_LINE: Final = (
    "posted_at",
    "kind",
    "order_no",
    "order",
    "voucher_id",
    "type",
    "amount",
    "fee",
    "fee_version",
    "tax",
)
COLUMNS: Final = ("row", *_OF_LINE, *(f"{name}_change" for name in _ACCOUNTS), *_ACCOUNTS, "currency")


async def get_bill(service: FundService, call: Call) -> Reply:
    """Handle `GET /v1/merchants/{id}/bill`: a page of the bill of a day or a month, the oldest line first.

    Without `day` and `month`, the bill is that of the current day. A page may be short while `next_cursor` is not null.
    """
    id_ = merchant_id(call.parameters["id"], "id")
    days = service.macs.days
    first, end = _period(call, days)
    limit = number(call.query, "limit", LIMIT_DEFAULT, 1, LIMIT_MAX)
    begins, ends, cursor = days.beginning_of(first), days.beginning_of(end), call.query.get("cursor")
    merchant = await service.reading(lambda: service.merchants.read(id_))
    if merchant is None:
        raise not_found(f"merchant {id_}")
    try:
        page = await service.reading(
            lambda: read_bill(service.pool, service.gateway, service.macs, id_, begins, ends, cursor, limit)
        )
    except BadCursor as bad:
        raise malformed(str(bad), field="cursor") from None
    except Unverified as found:
        return unverified(str(found))
    except GatewayFault as fault:
        raise Unavailable(f"the account service does not answer: {fault}") from None
    lines = [_line(line) for line in page.lines]
    if wants_csv(call):
        rows = _rows(page, lines, merchant.currency, is_first=cursor is None)
        return csv_page(COLUMNS, rows, page.cursor, page.unverified)
    bill = answers.Bill(
        *(id_, merchant.currency, time_text(begins), time_text(ends), _shown(page.opening), _shown(page.closing)),
        *(lines, page.cursor, unverified_items("order", page.unverified)),
    )
    return Reply(200, encode(bill))


def _period(call: Call, days: Days) -> tuple[date, date]:
    """Return the first day of the period, and the first day after it. Raises BadRequest (400)."""
    day, month = call.query.get("day"), call.query.get("month")
    if day is not None and month is not None:
        raise malformed("send either day or month", field="month")
    if month is not None:
        first = date_of(f"{month}-01", "month")
        return first, after_month(first)
    first = days.day_of(datetime.now(UTC)) if day is None else date_of(day, "day")
    return first, day_after(first)


def _line(line: BillLine) -> answers.BillLine:
    order = line.order
    return answers.BillLine(
        time_text(line.posted_at),
        None if order is None else order.kind,
        None if order is None else order.order_no,
        None if order is None else order.id,
        line.voucher_id,
        line.type,
        None if order is None else order.amount,
        line.fee,
        None if order is None else order.fee_version,
        line.tax,
        _shown(line.change),
        _shown(line.balance),
    )


def _shown(amounts: Amounts) -> answers.MerchantAmounts:
    return answers.MerchantAmounts(*msgspec.structs.astuple(amounts))


def _rows(
    page: BillPage, lines: list[answers.BillLine], currency: str, *, is_first: bool
) -> Iterator[tuple[object, ...]]:
    """Yield the rows of CSV. The first row of the bill has the opening balances, the last row the closing balances."""
    blank = (None,) * (len(_OF_LINE) + len(_ACCOUNTS))
    if is_first:
        yield "opening", *blank, *msgspec.structs.astuple(page.opening), currency
    for line in lines:
        members = [getattr(line, name) for name in _OF_LINE]
        amounts = [getattr(of, name) for of in (line.change, line.balance) for name in _ACCOUNTS]
        yield "line", *members, *amounts, currency
    if page.cursor is None:
        yield "closing", *blank, *msgspec.structs.astuple(page.closing), currency
