"""Model of batches in the ledger: the commands, and the rows that one transaction reads and writes."""

from collections.abc import Sequence
from datetime import date

import msgspec
from asyncpg.pgproto.pgproto import UUID

from fundledger.ledger.model.account import Account, Status, SubAccount
from fundledger.ledger.model.hold import EndHold, Hold, HoldKey, PlaceHold
from fundledger.ledger.model.refusal import Refusal
from fundledger.ledger.model.voucher import Key, Record, Voucher
from fundledger.security.mac import MacKey


class AtomicGroup:
    """A command to post several vouchers: all of them, or none."""

    __slots__ = ("vouchers",)

    def __init__(self, vouchers: Sequence[Voucher]) -> None:
        self.vouchers = vouchers


class SetStatus:
    """A command to freeze, unfreeze or close an account. `status` is the new status."""

    __slots__ = ("account", "module", "reason", "status")

    def __init__(self, account: Account, status: Status, reason: str, module: str) -> None:
        self.account = account
        self.status = status
        self.reason = reason
        self.module = module


class Resplit:
    """A command to spread a merchant's account over its first `slots` sub-accounts.

    Missing slots are opened. Each slot with a number of `slots` or higher is emptied into slot 0 and merged. A slot
    with open holds cannot be merged yet, because the held amount stays in the slot. After the holds have ended, a later
    command merges the slot.
    """

    __slots__ = ("account", "module", "reason", "slots")

    def __init__(self, account: Account, slots: int, reason: str, module: str) -> None:
        self.account = account
        self.slots = slots
        self.reason = reason
        self.module = module


class Rebalance:
    """A command to post an ordinary voucher that makes the available amounts of an account's slots equal."""

    __slots__ = ("account",)

    def __init__(self, account: Account) -> None:
        self.account = account


class Drain:
    """A command to drain the buffer of an account: all rows, or the `rows_max` oldest rows.

    All rows that one batch wrote are drained together, even if their number exceeds `rows_max`.
    """

    __slots__ = ("account", "rows_max")

    def __init__(self, account: Account, rows_max: int | None = None) -> None:
        self.account = account
        self.rows_max = rows_max


class SetPolicy:
    """A command to start or stop buffering an account's credits."""

    __slots__ = ("account", "buffered", "module", "reason")

    def __init__(self, account: Account, buffered: bool, reason: str, module: str) -> None:
        self.account = account
        self.buffered = buffered
        self.reason = reason
        self.module = module


class BufferedCredit(msgspec.Struct, frozen=True, gc=False):
    """A buffered credit, as stored in `buffered_entries`.

    The batch `batch` wrote `of` such rows for the account, numbered from 1. `number` is the number of this row.
    """

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


Command = Voucher | AtomicGroup | PlaceHold | EndHold | SetStatus | Resplit | Rebalance | Drain | SetPolicy


Entry = tuple[int, int, int, int, UUID | list[UUID], int, int, bytes, date | None, str | None]
"""Fields: shard, account number, slot, seq, voucher id (for a summary: a list with one id for each line), signed
amount, balance after, MAC, accounting date, and module of the vouchers. The accounting date is None if the entry has
the accounting date of the batch. The module is None for credits that were buffered before modules were recorded.
"""


class Outcome(msgspec.Struct, gc=False):
    """The posting result of one command: a record or hold, or a refusal.

    - `record`: the voucher's record; also present if the refusal is final
    - `replay`: True if an earlier request with this id had the same outcome
    - `parts[i]`: the outcome of the i-th voucher of an atomic group
    - `drained`: the times (us) at which the drained credits were accepted
    """

    record: Record | None = None
    refusal: Refusal | None = None
    replay: bool = False
    hold: Hold | None = None
    parts: "list[Outcome] | None" = None
    drained: list[int] | None = None


def refused(command: Command, refusal: Refusal) -> Outcome:
    """Return the outcome of a refused command.

    If the command is an atomic group, each of its vouchers gets the refusal.
    """
    if type(command) is AtomicGroup:
        return Outcome(parts=[Outcome(refusal=refusal) for _ in command.vouchers])
    return Outcome(refusal=refusal)


class Batch:
    """The state of one transaction: the rows that were read, and the rows to write.

    `sub_accounts` is keyed by `place_of`. Each sub-account is either locked until the transaction ends, or compared
    with the stored row when the batch is written. Vouchers and holds are keyed by module and id. If `narrow` or
    `to_drain` is not empty, the outcomes are void.

    - `mine`, `my_holds`: vouchers and holds that an earlier attempt at this batch may have committed
    - `narrow[number]`: too few slots of this account were read; the value is the minimum number of slots to read
    - `opened`: new slots; `resized`: slot 0 of each account that gets new slots; `routes`: the Resplit commands
    - `standing`: the version and MAC that each written sub-account gets
    - `summarises`: True if entries for lines on platform accounts are written at the end of the batch
    - `summaries`: the lines on platform accounts whose entries are not written yet; empty unless `summarises` is True
    - `deferred`: slot 0 of each account whose credits are buffered
    - `buffered`: the buffered credits of this batch (account number, voucher, amount)
    - `backlog`: the buffered credits of each account, read while slot 0 of the account was locked
    - `to_drain`: accounts whose buffered credits were not read but are needed
    - `drained`: the buffered rows that this batch posts; `policies`: the SetPolicy commands
    - `counts`: `(shard, account number, slot, seq, number of statement lines minus one)` for each entry that is not
      exactly one statement line
    """

    __slots__ = (
        "accounting_date",
        "backlog",
        "buffered",
        "changed_holds",
        "counts",
        "date_ordinal",
        "deferred",
        "drained",
        "entries",
        "events",
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
        "to_drain",
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
        self.to_drain: set[int] = set()
        self.backlog: dict[int, list[BufferedCredit]] = {}
        self.drained: list[tuple[int, BufferedCredit]] = []
        self.policies: list[SetPolicy] = []

    def happens_at(self, posted_at_us: int, accounting_date: date) -> None:
        """Set the posting time and accounting date of all commands that are decided from now on."""
        self.posted_at_us = posted_at_us
        self.accounting_date = accounting_date
        self.date_ordinal = accounting_date.toordinal()

    def has_writes(self) -> bool:
        return bool(
            self.new_vouchers or self.changed_holds or self.events or self.routes or self.policies or self.drained
        )


def place_of(account: Account, shard: int, ordinal: int) -> int:
    """Return the key of the sub-account to which the worker `ordinal` prefers to post in a shard.

    The key is `(account number << 16) + slot`.
    """
    if account.type.platform:
        return (account.number << 16) + shard * account.slots + ordinal % account.slots
    return account.number << 16 if account.slots == 1 else (account.number << 16) + ordinal % account.slots


def places_of(voucher: Voucher, ordinal: int) -> list[int]:
    """Return `place_of` for each line. The result is cached in the voucher and used twice in each batch."""
    places = voucher.places
    if places is None:
        home = voucher.shard
        places = voucher.places = [
            place_of(account, home if account.type.platform else account.shard, ordinal) for account, _ in voucher.lines
        ]
    return places
