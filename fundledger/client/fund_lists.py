"""Python client of the fund service: lists over all merchants, bills, day sums, bank statements."""

from collections.abc import AsyncIterator
from datetime import date, datetime
from urllib.parse import quote

from fundledger.client.connection import decoder
from fundledger.client.fund_types import BankStatement, BillPage, DayPage, Kind, Order
from fundledger.client.pages import Pages, each_page
from fundledger.client.service import Service, time_text

_orders = Pages(list[Order], "orders")
_bill = decoder(BillPage)
_day = decoder(DayPage)
_statements = Pages(list[BankStatement], "statements")


class FundLists(Service):
    """The part of the client of the fund service that reads lists. Use `FundService`, which has these methods."""

    def all_orders(
        self,
        merchant: str | None = None,
        kind: Kind | None = None,
        state: str | None = None,
        from_: datetime | None = None,
        to: datetime | None = None,
        channel: str | None = None,
        channel_ref: str | None = None,
        amount: int | None = None,
        limit: int = 500,
    ) -> AsyncIterator[Order]:
        """Yield the orders of all merchants that match all arguments from all pages, the oldest first.

        `from_` and `to` bound `created_at`. `limit`: orders per page. An order that does not match its MAC is omitted.
        """
        query = {
            "merchant": merchant,
            "kind": kind,
            "state": state,
            "channel": channel,
            "channel_ref": channel_ref,
            "from": None if from_ is None else time_text(from_),
            "to": None if to is None else time_text(to),
            "amount": None if amount is None else str(amount),
            "limit": str(limit),
        }
        return _orders.read(self._to, "/v1/orders", query)

    def bill(
        self, merchant: str, day: date | None = None, month: str | None = None, limit: int = 500
    ) -> AsyncIterator[BillPage]:
        """Yield the pages of a merchant's bill of a day or of a month (`YYYY-MM`), the oldest line first.

        Without both, the bill is that of the current day. `limit`: lines per page. Raises Refused with `not-found`.
        """
        query = {"day": None if day is None else day.isoformat(), "month": month, "limit": str(limit)}
        return each_page(self._to, f"/v1/merchants/{quote(merchant, safe='')}/bill", query, _bill)

    def day_sums(self, day: date, limit: int = 500) -> AsyncIterator[DayPage]:
        """Yield the pages of the sums of a day. `limit`: sums per page."""
        return each_page(self._to, f"/v1/days/{day.isoformat()}", {"limit": str(limit)}, _day)

    def bank_statements(self, channel: str | None = None, limit: int = 50) -> AsyncIterator[BankStatement]:
        """Yield the imported bank statements from all pages, ordered by channel and number. `limit`: statements per
        page.
        """
        return _statements.read(self._to, "/v1/bank-statements", {"channel": channel, "limit": str(limit)})
