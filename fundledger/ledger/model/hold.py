"""Model of holds in the ledger: an amount of a sub-account that is set aside until capture, release or expiry."""

import hashlib
from enum import IntEnum
from typing import TypeAlias

import msgspec
from asyncpg.pgproto.pgproto import UUID

from fundledger.ledger.model.account import Account
from fundledger.ledger.model.refusal import Refusal

HoldKey: TypeAlias = tuple[str, str]
"""The identity of a hold: module and hold id. Only the module that placed a hold can capture or release it."""


class HoldStatus(IntEnum):
    OPEN = 0
    CAPTURED = 1
    RELEASED = 2
    EXPIRED = 3
    REFUSED = 4


class Hold(msgspec.Struct):
    """A hold as stored. Times are microseconds since 1970. `expires_at_us` is 0 if the hold never expires."""

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
    module: str

    @property
    def key(self) -> HoldKey:
        return self.module, self.id

    def expired_at(self, now_us: int) -> bool:
        return self.status == HoldStatus.OPEN and 0 < self.expires_at_us <= now_us


def hold_digest(id_: str, account_id: str, amount: int, expires_at_us: int) -> bytes:
    """Return the SHA-256 of a hold request.

    Two requests with one id are the same if and only if their digests are equal.
    """
    return hashlib.sha256(f"hold/1\n{id_}\n{account_id}\n{amount}\n{expires_at_us}".encode()).digest()


class PlaceHold:
    """A command to set an amount of an account aside."""

    __slots__ = ("account", "amount", "digest", "expires_at_us", "id", "key", "module")

    def __init__(self, id_: str, account: Account, amount: int, expires_at_us: int, module: str) -> None:
        self.id = id_
        self.module = module
        self.key: HoldKey = (module, id_)
        self.account = account
        self.amount = amount
        self.expires_at_us = expires_at_us
        self.digest = hold_digest(id_, account.id, amount, expires_at_us)


class EndHold:
    """A command to end a hold: the hold `id_` of `module`, on slot `slot` of the account.

    If `expire` is False, the hold is released. If `expire` is True, a hold whose expiry time has passed is ended as
    expired. A hold whose expiry time has not passed is then left unchanged.
    """

    __slots__ = ("account", "expire", "id", "key", "slot")

    def __init__(self, id_: str, account: Account, slot: int, module: str, expire: bool = False) -> None:
        self.id = id_
        self.key: HoldKey = (module, id_)
        self.account = account
        self.slot = slot
        self.expire = expire
