"""Answers of the account service. The OpenAPI document takes their schemas from these types."""

from datetime import date
from typing import Annotated, Final, Literal

import msgspec
from msgspec import UNSET, UnsetType

from fundledger.app.http.events import Seq
from fundledger.app.http.problems import Problem
from fundledger.json_values import (
    Amount,
    Available,
    Balance,
    CurrencyCode,
    Exact,
    Held,
    Id,
    Instant,
    Posted,
    Text,
    Uuid,
    about,
)
from fundledger.ledger.model.account import Status
from fundledger.ledger.model.chart import CHART
from fundledger.ledger.model.hold import HoldStatus

STATUS_NAMES: Final = {
    Status.OPEN: "open",
    Status.FROZEN_DEBITS: "frozen",
    Status.FROZEN_ALL: "frozen",
    Status.CLOSED: "closed",
    Status.FROZEN_INTEGRITY: "frozen",
}
AccountType = Annotated[str, about(enum=list(CHART))]
AccountStatus = Annotated[str, about(enum=list(dict.fromkeys(STATUS_NAMES.values())))]
NextCursor = Annotated[str | None, about("send it as `cursor` for the next page; null on the last page")]
Metadata = Annotated[msgspec.Raw, about("as it was sent; absent if none was sent", type="object")]
Side = Annotated[str, about(enum=["credit", "debit"])]
VoucherStatus = Literal["posted", "refused"]


class Account(msgspec.Struct, kw_only=True):
    id: Id
    module: Annotated[
        str | None, about("the module that opened the account; null if it was opened before modules were recorded")
    ]
    owner: Id
    type: AccountType
    currency: CurrencyCode
    status: AccountStatus
    balance: Balance
    version: Annotated[int, about("increases with every change", minimum=0)]
    sub_accounts: Annotated[int, about("number of sub-accounts that hold the balance", minimum=1)]
    heat: Annotated[str, about(enum=["cold", "warming", "hot", "cooling"])]
    posting: Literal["direct", "buffered"]
    created_at: Instant
    metadata: Metadata | UnsetType = UNSET
    frozen_scope: (
        Annotated[str, about("present if the account is frozen for credits, too", enum=["all"])] | UnsetType
    ) = UNSET


class Accounts(msgspec.Struct):
    accounts: Annotated[list[Account], about("ordered by id")]
    unverified: Annotated[
        list[Id], about("accounts of this page whose records fail their MAC check; report them to the operator")
    ]
    next_cursor: NextCursor


class BalanceAt(Exact):
    account: Id
    at: Annotated[Instant | None, about("the requested time; null for the current balance")]
    posted: Posted
    held: Held
    available: Available
    posted_text: Text = UNSET
    held_text: Text = UNSET
    available_text: Text = UNSET


Column = Annotated[int, about("in minor units", minimum=0)]


class Calendar(msgspec.Struct):
    timezone: Annotated[str, about("name of a time zone, such as `Asia/Shanghai`")]
    cut: Annotated[str, about("local time of day at which an accounting date ends", pattern="^[0-2][0-9]:[0-5][0-9]$")]


class TrialBalanceRow(Exact):
    account: Id
    owner: Id
    type: AccountType
    currency: CurrencyCode
    debit: Annotated[Column, about("the balance, if the account has more debits than credits; otherwise 0")]
    credit: Annotated[Column, about("the balance, if the account has more credits than debits; otherwise 0")]
    debit_text: Text = UNSET
    credit_text: Text = UNSET


class Total(Exact):
    currency: CurrencyCode
    debit: Column
    credit: Column
    debit_text: Text = UNSET
    credit_text: Text = UNSET


class TrialBalance(msgspec.Struct):
    at: Annotated[Instant, about("the time of all balances; the same on each page")]
    accounts: Annotated[list[TrialBalanceRow], about("ordered by id; without accounts that were opened later")]
    totals: Annotated[list[Total], about("on the last page: the sums over all pages, by currency; otherwise empty")]
    unverified: Annotated[
        list[Id], about("accounts of this page whose records fail their MAC check; they are in no total")
    ]
    next_cursor: NextCursor


class StatementEntry(Exact):
    seq: Annotated[
        int,
        about(
            "number of the line in the account, from 1; it never changes. At level `entries`: number of the entry in "
            "its slot",
            minimum=1,
        ),
    ]
    voucher_id: Annotated[Uuid | None, about("null only for a summary entry")]
    type: Annotated[str, about("the type of the voucher, or `summary`")]
    side: Side
    amount: Annotated[int, about("in minor units", minimum=0)]
    balance_after: Annotated[int, about("the balance of the account, in its normal direction")]
    posted_at: Instant
    accounting_date: date
    slot: Annotated[int, about("the slot of the entry; for a line over several slots, the last one", minimum=0)]
    summary: Annotated[
        int | None,
        about("number of lines in the summary entry that includes this line; null if there is none", minimum=2),
    ]
    currency: CurrencyCode
    reference: Annotated[str | None, about("the reference of the voucher")]
    counter_account: Annotated[Id | None, about("the account on the other side; null if there are several, or none")]
    counter_accounts: Annotated[list[Id], about("all other accounts on the other side of the voucher")]
    order_no: Annotated[str | None, about("`order_no` of the voucher's metadata, if present")]
    kind: Annotated[str | None, about("`kind` of the voucher's metadata, if present")]
    amount_text: Text = UNSET
    balance_after_text: Text = UNSET


class Statement(msgspec.Struct):
    entries: Annotated[
        list[StatementEntry],
        about("oldest first; a page may be short or empty while `next_cursor` is not null"),
    ]
    next_cursor: NextCursor


class Entry(msgspec.Struct):
    account: Id
    side: Side
    amount: Amount


class Voucher(msgspec.Struct, kw_only=True):
    id: Uuid
    type: Annotated[str, about(pattern="^[a-z_]{1,32}$")]
    status: VoucherStatus
    posted_at: Annotated[Instant, about("time of posting or refusal")]
    accounting_date: date
    module: Annotated[str, about("the module that posted it; ids are unique within a module")]
    entries: Annotated[list[Entry], about(minItems=2, maxItems=64)]
    reference: str | None
    hold: Annotated[Id, about("the hold that the voucher captured")] | UnsetType = UNSET
    reverses: Annotated[Uuid, about("the voucher that this one reverses")] | UnsetType = UNSET
    metadata: Metadata | UnsetType = UNSET
    problem: Annotated[Problem, about("reason of the refusal; only in answers to GET")] | UnsetType = UNSET
    reversed_by: Annotated[Uuid, about("the voucher that reversed this one; only in answers to GET")] | UnsetType = (
        UNSET
    )


class BatchResult(msgspec.Struct):
    id: Uuid
    status: VoucherStatus
    posted_at: Annotated[Instant, about("present if the item is posted")] | UnsetType = UNSET
    problem: Annotated[Problem, about("present if the item is refused")] | UnsetType = UNSET
    replay: Annotated[bool, about("present if the item had been posted before")] | UnsetType = UNSET


class BatchResults(msgspec.Struct):
    results: Annotated[list[BatchResult], about("`results[i]` answers `vouchers[i]`")]


class Hold(msgspec.Struct):
    id: Id
    module: Annotated[str, about("the module that placed the hold; no other module can end it")]
    account: Id
    amount: Amount
    captured: Annotated[int, about("the amount that was captured", minimum=0)]
    status: Annotated[str, about(enum=[status.name.lower() for status in HoldStatus])]
    created_at: Instant
    expires_at: Annotated[Instant | None, about("null if the hold never expires")]
    ended_at: Annotated[Instant | None, about("null while the hold is open")]
    voucher_id: Annotated[Uuid | None, about("the voucher that captured the hold")]
    problem: Annotated[Problem, about("reason of the refusal")] | UnsetType = UNSET


class Event(msgspec.Struct, kw_only=True):
    seq: Annotated[Seq, about("position of the event in the feed; with gaps")]
    id: Annotated[Uuid, about("id of the voucher; use it to detect duplicates")]
    type: Annotated[str, about(enum=["voucher.posted", "voucher.refused", "voucher.unverified"])]
    module: Annotated[str | None, about("the module that posted it; ids are unique within a module")]
    integrity: (
        Annotated[
            bool, about("present if the record does not match its MAC; its content is then withheld", const=False)
        ]
        | UnsetType
    ) = UNSET
    voucher: Voucher | UnsetType = UNSET
    at: Instant
