"""A hold: an amount set aside on one sub-account, until it is captured, released or expires."""

import hashlib
from enum import IntEnum

import msgspec
from asyncpg.pgproto.pgproto import UUID

from fundledger.ledger.account import Account
from fundledger.ledger.refusal import Refusal


class HoldStatus(IntEnum):
    OPEN = 0
    CAPTURED = 1
    RELEASED = 2
    EXPIRED = 3
    REFUSED = 4


class Hold(msgspec.Struct):
    """As it stands in the database. Times in microseconds since 1970; 0 in `expires_at_us` means never."""

    id: str
    account: Account
    slot: int
    amount: int
    captured: int
    status: HoldStatus
    digest: bytes
    voucher_id: UUID | None
    refusal: Refusal | None
    created_at_us: int
    expires_at_us: int
    ended_at_us: int

    def expired_at(self, now_us: int) -> bool:
        return self.status == HoldStatus.OPEN and 0 < self.expires_at_us <= now_us


class PlaceHold:
    """A request to set an amount aside."""

    __slots__ = ("account", "amount", "digest", "expires_at_us", "id")

    def __init__(self, id_: str, account: Account, amount: int, expires_at_us: int) -> None:
        self.id = id_
        self.account = account
        self.amount = amount
        self.expires_at_us = expires_at_us
        self.digest = hashlib.sha256(f"hold/1\n{id_}\n{account.id}\n{amount}\n{expires_at_us}".encode()).digest()


class EndHold:
    """A request to free a hold: by the caller, or (`expire`) because its time is up. The place it is held is fixed."""

    __slots__ = ("account", "expire", "id", "slot")

    def __init__(self, id_: str, account: Account, slot: int, expire: bool = False) -> None:
        self.id = id_
        self.account = account
        self.slot = slot
        self.expire = expire
