"""What one transaction has read, and what it is going to write. Filled by `posting`, changed by `rules.decide`."""

from collections.abc import Sequence
from datetime import date

import msgspec
from asyncpg.pgproto.pgproto import UUID

from fundledger.ledger.account import Account, Status, SubAccount
from fundledger.ledger.hold import EndHold, Hold, HoldKey, PlaceHold
from fundledger.ledger.refusal import Refusal
from fundledger.ledger.voucher import Key, Record, Voucher
from fundledger.security.mac import MacKey


class AtomicGroup:
    """Vouchers of which all are posted or none."""

    __slots__ = ("vouchers",)

    def __init__(self, vouchers: Sequence[Voucher]) -> None:
        self.vouchers = vouchers


class SetStatus:
    """A request to freeze, unfreeze or close: `status` is the one that the account is to have."""

    __slots__ = ("account", "module", "reason", "status")

    def __init__(self, account: Account, status: Status, reason: str, module: str) -> None:
        self.account = account
        self.status = status
        self.reason = reason
        self.module = module


class Resplit:
    """A request to spread a merchant's account over its first `slots` sub-accounts: more are opened, or the others
    emptied into the first and merged. One that has open holds is left with what is held, and merged by asking again.
    """

    __slots__ = ("account", "module", "reason", "slots")

    def __init__(self, account: Account, slots: int, reason: str, module: str) -> None:
        self.account = account
        self.slots = slots
        self.reason = reason
        self.module = module


class Rebalance:
    """A request to level what is available on the slots of an account, by an ordinary voucher."""

    __slots__ = ("account",)

    def __init__(self, account: Account) -> None:
        self.account = account


class Fold:
    """A request to post what waits in the buffer of an account."""

    __slots__ = ("account",)

    def __init__(self, account: Account) -> None:
        self.account = account


class SetPolicy:
    """A request to buffer an account's credits from now on, or no longer."""

    __slots__ = ("account", "buffered", "module", "reason")

    def __init__(self, account: Account, buffered: bool, reason: str, module: str) -> None:
        self.account = account
        self.buffered = buffered
        self.reason = reason
        self.module = module


class Unfolded(msgspec.Struct, frozen=True, gc=False):
    """A row of `buffered_entries`: the `number`-th `of` those that its batch has for the account."""

    batch: int
    number: int
    of: int
    voucher_id: UUID
    amount: int
    accounting_date: date
    posted_at_us: int
    key_version: int
    mac: bytes
    module: str | None


Command = Voucher | AtomicGroup | PlaceHold | EndHold | SetStatus | Resplit | Rebalance | Fold | SetPolicy


Entry = tuple[int, int, int, int, UUID | list[UUID], int, int, bytes, date | None, str | None]
"""Shard, account number, slot, seq, voucher id (of a summary: of each line), signed amount, balance after, MAC, its
accounting date where that is not the batch's, and the module of its vouchers (None: they were buffered before that was
recorded).
"""


class Outcome(msgspec.Struct, gc=False):
    """The answer to one command: what stands in the ledger now, or why not.

    A refusal that is final comes with its record. `replay`: an earlier request with this id got this answer first.
    `parts[i]` answers the i-th voucher of an atomic group; `folded` are the times (us) at which what was folded
    had been accepted.
    """

    record: Record | None = None
    refusal: Refusal | None = None
    replay: bool = False
    hold: Hold | None = None
    parts: "list[Outcome] | None" = None
    folded: list[int] | None = None


class Batch:
    """`sub_accounts` is keyed by `place_of`; what is in it is locked until the transaction ends, or compared when it is
    written.

    Vouchers and holds are known by module and id. `mine` are the vouchers, and `my_holds` the holds, that an earlier
    attempt at this same batch may have committed without our hearing of it. `narrow` are the accounts of which more
    slots are needed than were read, and how many at least; what was decided then does not count. `opened` are new
    slots, `resized` the first slots that tell of them, `routes` the requests. `standing` is, of each sub-account that
    is written, the version and MAC that it gets.
    `summaries` are the lines on platform accounts that have no entry yet, if the batch `summarises` them.
    `deferred` is slot 0 of each account whose credits go to the buffer, `buffered` are these credits (account number,
    voucher, amount); `unfolded` is what waits for an account, read under its lock, `unfold` asks for that of more
    accounts, and `folded` are the rows that are posted; `policies` are requests. `counts` are entries that are not
    one line of a statement each: shard, account number, slot, seq, and how many lines more they are.
    """

    __slots__ = (
        "accounting_date",
        "buffered",
        "changed_holds",
        "counts",
        "date_ordinal",
        "deferred",
        "entries",
        "events",
        "folded",
        "holds",
        "key",
        "mine",
        "my_holds",
        "narrow",
        "new_holds",
        "new_vouchers",
        "number",
        "opened",
        "ordinal",
        "policies",
        "posted_at_us",
        "resized",
        "reversed_by",
        "routes",
        "standing",
        "sub_accounts",
        "summaries",
        "summarises",
        "tampered",
        "unfold",
        "unfolded",
        "vouchers",
    )

    def __init__(
        self,
        number: int,
        ordinal: int,
        key: MacKey,
        posted_at_us: int,
        accounting_date: date,
        *,
        summarises: bool = True,
    ) -> None:
        self.number = number
        self.ordinal = ordinal
        self.key = key
        self.posted_at_us = posted_at_us
        self.accounting_date = accounting_date
        self.date_ordinal = accounting_date.toordinal()
        self.sub_accounts: dict[int, SubAccount] = {}
        self.vouchers: dict[Key, Record] = {}
        self.mine: set[Key] = set()
        self.my_holds: set[HoldKey] = set()
        self.holds: dict[HoldKey, Hold] = {}
        self.reversed_by: dict[Key, UUID] = {}
        self.tampered: dict[int, str] = {}
        self.new_vouchers: list[tuple[int, Record]] = []
        self.entries: list[Entry] = []
        self.counts: list[tuple[int, int, int, int, int]] = []
        self.summaries: dict[SubAccount, list[tuple[Key, int]]] = {}
        self.summarises = summarises
        self.standing: list[tuple[SubAccount, int, bytes]] = []
        self.changed_holds: dict[HoldKey, Hold] = {}
        self.new_holds: set[HoldKey] = set()
        self.events: list[SetStatus] = []
        self.narrow: dict[int, int] = {}
        self.opened: list[SubAccount] = []
        self.resized: list[SubAccount] = []
        self.routes: list[Resplit] = []
        self.deferred: dict[int, SubAccount] = {}
        self.buffered: list[tuple[int, Key, int]] = []
        self.unfold: set[int] = set()
        self.unfolded: dict[int, list[Unfolded]] = {}
        self.folded: list[tuple[int, Unfolded]] = []
        self.policies: list[SetPolicy] = []

    def happens_at(self, posted_at_us: int, accounting_date: date) -> None:
        """What is decided from now on was posted at this time."""
        self.posted_at_us = posted_at_us
        self.accounting_date = accounting_date
        self.date_ordinal = accounting_date.toordinal()

    def has_writes(self) -> bool:
        return bool(
            self.new_vouchers or self.changed_holds or self.events or self.routes or self.policies or self.folded
        )


def place_of(account: Account, shard: int, ordinal: int) -> int:
    """Key of the sub-account that a worker prefers in a shard: account number and slot in one integer."""
    if account.type.platform:
        return (account.number << 16) + shard * account.slots + ordinal % account.slots
    return account.number << 16 if account.slots == 1 else (account.number << 16) + ordinal % account.slots


def places_of(voucher: Voucher, ordinal: int) -> list[int]:
    """`place_of` each line. Kept with the voucher, since planning and deciding ask, and always for the same worker."""
    places = voucher.places
    if places is None:
        home = voucher.shard
        places = voucher.places = [
            place_of(account, home if account.type.platform else account.shard, ordinal) for account, _ in voucher.lines
        ]
    return places
