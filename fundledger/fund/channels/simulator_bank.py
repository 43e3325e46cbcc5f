"""Bank simulator of the fund service, part: its database, with payouts, refunds, returned payouts and receipts."""

import hashlib
import sqlite3
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Final, Literal

import msgspec

from fundledger.database.statements import load
from fundledger.fund.channels.http import Moved
from fundledger.fund.model.bank_account import BankAccount
from fundledger.fund.model.requests import Amount, ChannelRef, Currency

SQL: Final = load("fundledger.fund.channels")


class SentBody(msgspec.Struct, forbid_unknown_fields=True):
    ref: ChannelRef
    amount: Amount
    currency: Currency


class PayoutBody(SentBody, forbid_unknown_fields=True):
    """`payee`: the bank account to which the amount is paid."""

    payee: BankAccount | None = None

    @property
    def payee_json(self) -> str | None:
        return None if self.payee is None else msgspec.json.encode(self.payee).decode()


class RefundBody(SentBody, forbid_unknown_fields=True):
    """`original_ref`: the reference of the refunded payment at the bank."""

    original_ref: ChannelRef | None = None


class ReturnBody(msgspec.Struct, forbid_unknown_fields=True):
    """A return of a paid payout by the payee's bank. `amount`: None for the whole payout. `channel_ref`: the bank's
    reference of the return, None for one that is derived from the payout.
    """

    amount: Amount | None = None
    channel_ref: ChannelRef | None = None


class ReceiptBody(msgspec.Struct, forbid_unknown_fields=True):
    """A movement on the platform's bank account. `amount` is positive for money that the bank received, and negative
    for money that was taken back. `channel_ref`: the bank's reference.
    """

    channel_ref: ChannelRef
    amount: Moved
    currency: Currency = "CNY"


class Kept(msgspec.Struct):
    """A row of the table `payouts` or `refunds`. Times are in ms since 1970. `asked`: the number of requests to pay.
    `payee`: the bank account of a payout, as JSON.
    """

    ref: str
    channel_ref: str
    amount: int
    currency: str
    outcome: Literal["paid", "bounced"]
    settles_ms: int
    asked: int
    original_ref: str | None = None
    payee: str | None = None


class Line(msgspec.Struct):
    ref: str
    channel_ref: str
    amount: int
    currency: str


class Bank:
    """The database of the simulator. A method that changes rows returns after its change is on disk."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(folder / "simulator.db", isolation_level=None)
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        for name in ("payouts", "refunds", "returns", "receipts"):
            self._db.execute(SQL[f"simulator_{name}"])
        if not self._db.execute(SQL["simulator_has_payees"]).fetchall():
            # A database of an earlier version.
            self._db.execute(SQL["simulator_add_payees"])

    def close(self) -> None:
        self._db.close()

    def pay(self, body: PayoutBody | RefundBody, outcome: str, settle_after_ms: int) -> Kept:
        """Insert a payout or a refund and return its row. If its reference exists, count the request and return the
        existing row.
        """
        now = now_ms()
        values = (body.ref, _named("SIM", body.ref), body.amount, body.currency, outcome, now, now + settle_after_ms)
        if isinstance(body, RefundBody):
            return Kept(**self._db.execute(SQL["simulator_refund"], (*values, body.original_ref)).fetchall()[0])
        return Kept(**self._db.execute(SQL["simulator_pay"], (*values, body.payee_json)).fetchall()[0])

    def read(self, ref: str, *, is_refund: bool = False) -> Kept | None:
        rows = self._db.execute(SQL["simulator_read_refund" if is_refund else "simulator_read"], (ref,)).fetchall()
        return Kept(**rows[0]) if rows else None

    def return_payout(self, kept: Kept, body: ReturnBody) -> Line | None:
        """Insert a return of a payout. Return None if the payout is not paid, if more would return than was paid, or if
        the reference exists.
        """
        named = body.channel_ref or _named("RET", kept.ref)
        values = (kept.ref, named, kept.amount if body.amount is None else body.amount, now_ms())
        rows = self._db.execute(SQL["simulator_return"], values).fetchall()
        return Line(**rows[0]) if rows else None

    def receive(self, body: ReceiptBody) -> None:
        self._db.execute(SQL["simulator_receive"], (body.channel_ref, body.amount, body.currency, now_ms()))

    def settle(self) -> None:
        self._db.execute(SQL["simulator_settle"], (now_ms(),))
        self._db.execute(SQL["simulator_settle_refunds"], (now_ms(),))

    def moved(self, day: date) -> list[Line]:
        start = datetime(day.year, day.month, day.day, tzinfo=UTC)
        bounds = [round(at.timestamp() * 1000) for at in (start, start + timedelta(days=1))]
        return [Line(**row) for row in self._db.execute(SQL["simulator_moved"], (*bounds, now_ms()))]

    def totals(self) -> dict[str, int]:
        return dict(self._db.execute(SQL["simulator_totals"], (now_ms(),)).fetchone())


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def _named(prefix: str, ref: str) -> str:
    """Return the bank's reference of a movement, derived from the reference of the platform."""
    return f"{prefix}-{hashlib.sha256(ref.encode()).hexdigest()[:16]}"
