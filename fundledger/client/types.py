"""What goes to the account service and what comes back. Amounts are ints in minor units, times are aware and UTC.

What comes back may have more members than are known here: a newer service does not break an older client.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import msgspec

from fundledger.client.faults import Problem

Side = Literal["debit", "credit"]


class Entry(msgspec.Struct, frozen=True, gc=False):
    """`amount`: 1 to 2^53-1."""

    account: str
    side: Side
    amount: int


def debit(account: str, amount: int) -> Entry:
    return Entry(account, "debit", amount)


def credit(account: str, amount: int) -> Entry:
    return Entry(account, "credit", amount)


class Voucher(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """To be posted: 2 to 64 entries, debits and credits equal, accounts of one currency.

    `id` names it for ever: who posts the same again gets the first answer again. `type`: 1 to 32 of `[a-z_]`.
    `metadata` is a JSON object of at most 4,096 bytes. `ticket`: the proof that somebody upstream authorised this.
    """

    id: UUID
    type: str
    entries: Sequence[Entry]
    reference: str | None = None
    metadata: dict[str, Any] | None = None
    ticket: str | None = None


class VoucherRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A voucher as the service keeps it. Of a refused one, `problem` says why."""

    id: UUID
    type: str
    status: Literal["posted", "refused"]
    posted_at: datetime
    accounting_date: str
    entries: list[Entry]
    module: str | None = None
    reference: str | None = None
    metadata: dict[str, Any] | None = None
    hold: str | None = None
    reverses: UUID | None = None
    reversed_by: UUID | None = None
    problem: Problem | None = None


class PostedVoucher(VoucherRecord, frozen=True, kw_only=True):
    """`replay`: it was posted before, and this is what was answered then."""

    replay: bool = False


class VoucherResult(msgspec.Struct, frozen=True, gc=False):
    """What became of one voucher of a batch. `posted_at` stands where the service tells it.

    A problem whose status is 500 or more is no refusal: nobody knows what became of that voucher.
    """

    id: UUID
    status: Literal["posted", "refused"]
    problem: Problem | None = None
    posted_at: datetime | None = None
    replay: bool = False


class Balance(msgspec.Struct, frozen=True):
    """`posted` counts in the account's normal direction; `pending` are credits that are not posted yet."""

    posted: int
    held: int
    pending: int
    available: int


class BalanceAt(msgspec.Struct, frozen=True):
    """`at` is None when it is the balance of now."""

    account: str
    at: datetime | None
    posted: int
    held: int
    available: int


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """`frozen_scope` is `all` where not even credits are taken."""

    id: str
    owner: str
    type: str
    currency: str
    status: str
    balance: Balance
    version: int
    sub_accounts: int
    heat: str
    created_at: datetime
    module: str | None = None
    posting: str = "direct"
    metadata: dict[str, Any] | None = None
    frozen_scope: str | None = None


class StatementEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A line of an account's statement: one line of a voucher. `seq` counts the lines of the account and never changes.

    `counter_accounts` are those on the voucher's other side; `counter_account` is the one, where there is only one.
    """

    seq: int
    voucher_id: UUID | None
    type: str | None
    side: Side
    amount: int
    balance_after: int
    posted_at: datetime
    accounting_date: str
    slot: int = 0
    summary: Any = None
    currency: str | None = None
    reference: str | None = None
    counter_account: str | None = None
    counter_accounts: list[str] = []
    order_no: str | None = None
    kind: str | None = None


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """`captured`: how much of `amount` went into the voucher that ended it."""

    id: str
    account: str
    amount: int
    status: str
    captured: int = 0
    created_at: datetime
    expires_at: datetime | None = None
    ended_at: datetime | None = None
    voucher_id: UUID | None = None
    problem: Problem | None = None
    module: str | None = None
    replay: bool = False
