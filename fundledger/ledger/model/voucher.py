"""Model of vouchers in the ledger: the command to move money, and the stored record."""

import hashlib
from collections.abc import Sequence
from datetime import date
from typing import Final, TypeAlias

import msgspec
from asyncpg.pgproto.pgproto import UUID

from fundledger.ledger.model.account import Account
from fundledger.ledger.model.refusal import Refusal

ENTRIES_MIN, ENTRIES_MAX = 2, 64
AMOUNT_MAX = (1 << 53) - 1
LEDGER: Final = "ledger"
"""The module of vouchers that the ledger itself posts. No client system has this name."""

Key: TypeAlias = tuple[str, UUID]
"""The identity of a voucher: module and voucher id. Voucher ids are unique within a module only."""


class Voucher:
    """A command to move money.

    - `lines[i]`: `(account, signed amount)`, credit positive, in the order of the request
    - `imbalance`: the sum of the signed amounts; 0 if the voucher is balanced
    - `unknown`: the id of the first account that does not exist; a voucher with such an account has no lines
    - `hold`: the id of the hold that the voucher captures; the hold is on the sub-account `hold_place` of shard
      `hold_shard`
    - `reverses`: the id of the voucher that this voucher reverses
    - `module`: the module to which the voucher, its hold and the reversed voucher belong
    - `shard`: the shard of the first non-platform account, or of the first account if all are platform accounts
    - `places`: the cached result of `batch.places_of`, None before the first call
    """

    __slots__ = (
        "digest",
        "hold",
        "hold_place",
        "hold_shard",
        "id",
        "imbalance",
        "key",
        "lines",
        "metadata",
        "module",
        "places",
        "reference",
        "reverses",
        "shard",
        "type",
        "unknown",
    )

    def __init__(
        self,
        id_: UUID,
        module: str,
        type_: str,
        lines: Sequence[tuple[Account, int]],
        imbalance: int,
        digest: bytes,
        reference: str | None = None,
        metadata: str | None = None,
        hold: str | None = None,
        hold_shard: int = 0,
        hold_place: int = 0,
        reverses: UUID | None = None,
        unknown: str | None = None,
    ) -> None:
        self.id = id_
        self.module = module
        self.key: Key = (module, id_)
        self.type = type_
        self.lines = lines
        self.imbalance = imbalance
        self.digest = digest
        self.reference = reference
        self.metadata = metadata
        self.hold = hold
        self.hold_shard = hold_shard
        self.hold_place = hold_place
        self.reverses = reverses
        self.unknown = unknown
        self.shard = _home(lines)
        self.places: list[int] | None = None


def _home(lines: Sequence[tuple[Account, int]]) -> int:
    for account, _ in lines:
        if not account.type.platform:
            return account.shard
    return lines[0][0].shard if lines else 0


class Record(msgspec.Struct, gc=False):
    """A voucher as stored: posted, or refused with a final refusal.

    `lines[i]`: `(account, signed amount)`, credit positive.
    """

    id: UUID
    type: str
    digest: bytes
    lines: Sequence[tuple[Account, int]]
    reference: str | None
    metadata: str | None
    hold: str | None
    reverses: UUID | None
    refusal: Refusal | None
    posted_at_us: int
    accounting_date: date
    batch: int
    module: str

    @property
    def key(self) -> Key:
        return self.module, self.id


def digest_of(
    type_: str,
    entries: Sequence[tuple[str, int]],
    reference: str | None,
    metadata: str | None,
    hold: str | None,
    reverses: UUID | None,
) -> bytes:
    """Return the SHA-256 of a voucher request.

    Two requests with one id are the same if and only if their digests are equal.

    The encoding is unambiguous. Types and ids cannot contain newlines. The free text (reference and metadata) comes
    last, after the length of the reference.
    """
    lines = "\n".join([f"{account}\n{amount}" for account, amount in entries])
    text = f"voucher/1\n{type_}\n{len(entries)}\n{lines}"
    if reference is not None or metadata is not None or hold is not None or reverses is not None:
        length = -1 if reference is None else len(reference)
        text = f"{text}\n{hold or ''}\n{reverses or ''}\n{length}\n{reference or ''}\n{metadata or ''}"
    return hashlib.sha256(text.encode()).digest()
