"""Model of accounts in the ledger: the part of an account that workers cache, and a sub-account in a batch."""

import hashlib
from enum import IntEnum

import msgspec

from fundledger.ledger.model.chart import AccountType

BALANCE_MAX = 1 << 62
"""Maximum absolute balance of a sub-account in minor units. It is far below the maximum of BIGINT."""


class Status(IntEnum):
    """The status of a sub-account, as stored.

    All sub-accounts of an account have the same status, except merged slots and rows with an integrity freeze.
    """

    OPEN = 0
    FROZEN_DEBITS = 1
    FROZEN_ALL = 2
    CLOSED = 3
    FROZEN_INTEGRITY = 4
    MERGED = 5
    """The slot is empty and accepts no entries. The row stays, because entries refer to it."""


class Account(msgspec.Struct, frozen=True, gc=False):
    """The cached part of an account.

    Only the fields `slots` and `buffered` can change. `slots` is the number of sub-accounts per shard to which workers
    post. `buffered` says whether the credits of the account are buffered. For a merchant's account the cached values
    may be out of date. The authoritative values are in slot 0: see SubAccount.
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
        """Return all slots of the account in a shard."""
        first = shard * self.slots if self.type.platform else 0
        return range(first, first + self.slots)

    def shards(self, shards: int) -> range:
        """Return the shards in which the account has sub-accounts."""
        return range(shards) if self.type.platform else range(self.shard, self.shard + 1)

    def slots_total(self, shards: int) -> int:
        """Return the number of sub-accounts in all shards."""
        return self.slots * len(self.shards(shards))


class SubAccount:
    """A row of `sub_accounts`, changed in memory by `rules.decide` and written once per batch.

    - `posted`: signed, credit positive
    - `written`: True if this batch has changed the row
    - `stored`: posted, held, version, status and MAC as last read or committed; if the stored row has changed since
      then, the write of the batch fails
    - `slots`: the number of existing slots; valid on slot 0 of a merchant's account only
    - `buffered`: whether credits may be buffered; valid on slot 0 of a merchant's account only
    - `suspect`: True if the row did not match its MAC at this read or an earlier one; such a row is frozen and never
      written
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
        """Record that the row was committed with this version, time and MAC."""
        self.version = version
        self.posted_at_us = posted_at_us
        self.stored = (self.posted, self.held, version, self.status, mac)
        self.written = False

    @property
    def available(self) -> int:
        """The available amount, in the account's normal direction."""
        return self.account.type.normal * self.posted - self.held


def shard_of(owner: str, shards: int) -> int:
    """Return the shard of all non-platform accounts of an owner."""
    return int.from_bytes(hashlib.sha256(owner.encode()).digest()[:8], "big") % shards
