"""An account as workers remember it, and a sub-account as a transaction holds it."""

import hashlib
from enum import IntEnum

import msgspec

from fundledger.ledger.chart import AccountType

SLOTS_PER_ACCOUNT = 1 << 16
BALANCE_MAX = 1 << 62
"""No sub-account's balance goes beyond this, either way: far below where BIGINT overflows."""


class Status(IntEnum):
    """Of a sub-account, as stored. All of an account carry the same, but for merged ones and an integrity freeze."""

    OPEN = 0
    FROZEN_DEBITS = 1
    FROZEN_ALL = 2
    CLOSED = 3
    FROZEN_INTEGRITY = 4
    MERGED = 5
    """A slot that was emptied and takes nothing any more; its row stays, for its entries."""


class Account(msgspec.Struct, frozen=True, gc=False):
    """What is remembered of an account. All but two never change: `slots`, over how many sub-accounts in one shard its
    postings are spread, and `buffered`, whether its credits are. Of a merchant's account these are preferences, and may
    be out of date: see SubAccount.
    """

    number: int
    id: str
    shard: int
    slots: int
    currency: str
    type: AccountType
    buffered: bool = False
    owner: str = ""

    def slots_in(self, shard: int) -> range:
        """All its slots in a shard."""
        first = shard * self.slots if self.type.platform else 0
        return range(first, first + self.slots)

    def shards(self, shards: int) -> range:
        """The shards where it has sub-accounts."""
        return range(shards) if self.type.platform else range(self.shard, self.shard + 1)

    def slots_total(self, shards: int) -> int:
        """How many sub-accounts it has, over all shards."""
        return self.slots * len(self.shards(shards))


class SubAccount:
    """A row of `sub_accounts`, changed in memory by `rules.decide` and written back once per batch.

    `posted` is signed, credit positive. `written` tells whether this batch changed it. `stored` is what the row holds:
    posted, held, version, status and MAC, which must still stand there when it is written. `slots`, of slot 0 of a
    merchant's account, is how many slots exist; `buffered`, of the same, whether credits may wait in the buffer.
    `suspect`: it does not match its MAC, or did not once; it is frozen, kept as it was found, and never written.
    """

    __slots__ = (
        "account",
        "buffered",
        "held",
        "last_entry_mac",
        "posted",
        "posted_at_us",
        "seq",
        "shard",
        "slot",
        "slots",
        "status",
        "stored",
        "suspect",
        "version",
        "written",
    )

    def __init__(
        self,
        account: Account,
        shard: int,
        slot: int,
        posted: int,
        held: int,
        version: int,
        seq: int,
        posted_at_us: int,
        status: int,
        last_entry_mac: bytes,
        mac: bytes = b"",
        slots: int = 1,
        buffered: bool = False,
        suspect: bool = False,
    ) -> None:
        self.account = account
        self.shard = shard
        self.slot = slot
        self.posted = posted
        self.held = held
        self.version = version
        self.seq = seq
        self.posted_at_us = posted_at_us
        self.status = status
        self.slots = slots
        self.buffered = buffered
        self.last_entry_mac = last_entry_mac
        self.stored = (posted, held, version, status, mac)
        self.suspect = suspect
        self.written = False

    def stands(self, version: int, posted_at_us: int, mac: bytes) -> None:
        """It was written and committed like this."""
        self.version = version
        self.posted_at_us = posted_at_us
        self.stored = (self.posted, self.held, version, self.status, mac)
        self.written = False

    @property
    def available(self) -> int:
        """In the account's normal direction."""
        return self.account.type.normal * self.posted - self.held


def shard_of(owner: str, shards: int) -> int:
    """The shard where all non-platform accounts of an owner live."""
    return int.from_bytes(hashlib.sha256(owner.encode()).digest()[:8], "big") % shards
