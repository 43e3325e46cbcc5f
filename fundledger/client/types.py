"""Python client: request and response types of the account service.

Amounts are ints in minor units, times are aware and in UTC. Unknown members of a response are ignored, so that a newer
service does not break an older client.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import msgspec

from fundledger.client.faults import Problem

Side = Literal["debit", "credit"]


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A debit or credit of one account. `amount` is in minor units, from 1 to 2^53-1."""

    account: str
    side: Side
    amount: int


def debit(account: str, amount: int) -> Entry:
    return Entry(account, "debit", amount)


def credit(account: str, amount: int) -> Entry:
    return Entry(account, "credit", amount)


class Voucher(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A voucher to post, with 2 to 64 entries on accounts of one currency. Its debits equal its credits.

    `id` identifies the voucher permanently: a second request with the same id returns the first answer. `type`: 1 to 32
    characters of `[a-z_]`. `metadata`: a JSON object of at most 4,096 bytes. `ticket`: proof of authorisation by an
    upstream module.
    """

    id: UUID
    type: str
    entries: Sequence[Entry]
    reference: str | None = None
    metadata: dict[str, Any] | None = None
    ticket: str | None = None


class VoucherRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A voucher as the service stores it. `problem`: the reason for the refusal of a refused voucher."""

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
    """A posted voucher. `replay`: an earlier request posted the voucher, and got the same answer."""

    replay: bool = False


class VoucherResult(msgspec.Struct, frozen=True, gc=False):
    """Result of one voucher of a batch. `posted_at` is None if the service does not report the time.

    A problem with status 500 or above is not a refusal: the outcome of the voucher is unknown.
    """

    id: UUID
    status: Literal["posted", "refused"]
    problem: Problem | None = None
    posted_at: datetime | None = None
    replay: bool = False


class Balance(msgspec.Struct, frozen=True):
    """Balance of an account. `posted` counts in the account's normal direction. `pending`: credits that are not posted
    yet.
    """

    posted: int
    held: int
    pending: int
    available: int


class BalanceAt(msgspec.Struct, frozen=True):
    """Balance of an account at a time. `at` is None for the current balance."""

    account: str
    at: datetime | None
    posted: int
    held: int
    available: int


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """An account. In a frozen account, `frozen_scope` is `all` if credits are blocked in addition to debits."""

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


class Calendar(msgspec.Struct, frozen=True):
    """The accounting calendar: a local date of the time zone `timezone` ends at the time of day `cut` (HH:MM)."""

    timezone: str
    cut: str


class StatementEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A line of an account's statement: one entry of a voucher. `seq` numbers the account's lines and never changes.

    `counter_accounts`: the accounts on the other side of the voucher. `counter_account`: the account on the other side,
    if there is only one.
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


class TrialBalanceRow(msgspec.Struct, frozen=True, kw_only=True):
    """An account of the trial balance. One of `debit` and `credit` is 0, the other is the balance."""

    account: str
    owner: str
    type: str
    currency: str
    debit: int
    credit: int


class Total(msgspec.Struct, frozen=True, kw_only=True):
    """The sums of the two columns of the trial balance in one currency."""

    currency: str
    debit: int
    credit: int


class TrialBalancePage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of the trial balance at the time `at`. `totals`: the sums over all pages; only the last page has them.
    `unverified`: ids of accounts whose rows do not match their MACs; they are in no sum.
    """

    at: datetime
    accounts: list[TrialBalanceRow]
    totals: list[Total] = []
    unverified: list[str] = []
    next_cursor: str | None = None


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """A hold. `captured`: the part of `amount` that was debited by the voucher that captured the hold."""

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
