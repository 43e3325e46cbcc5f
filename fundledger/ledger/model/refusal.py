"""Model of refusals in the ledger: the business rejections of commands. A refusal is a value and is never raised."""

from enum import StrEnum
from typing import Final

import msgspec


class Code(StrEnum):
    """Refusal codes, in the order in which the rules check their conditions.

    The groups are: replay, shape, existence, status, agreement, funds, and the refusal of a whole atomic batch.
    """

    VOUCHER_ID_REUSED = "voucher-id-reused"
    HOLD_ID_REUSED = "hold-id-reused"

    VOUCHER_UNBALANCED = "voucher-unbalanced"
    HOLD_EXPIRY_PAST = "hold-expiry-past"

    ACCOUNT_NOT_FOUND = "account-not-found"
    HOLD_NOT_FOUND = "hold-not-found"
    VOUCHER_NOT_POSTED = "voucher-not-posted"

    ACCOUNT_CLOSED = "account-closed"
    ACCOUNT_FROZEN = "account-frozen"
    HOLD_CAPTURED = "hold-captured"
    HOLD_RELEASED = "hold-released"
    HOLD_EXPIRED = "hold-expired"
    HOLD_REFUSED = "hold-refused"
    VOUCHER_ALREADY_REVERSED = "voucher-already-reversed"

    HOLD_ON_PLATFORM_ACCOUNT = "hold-on-platform-account"
    CURRENCY_MISMATCH = "currency-mismatch"
    HOLD_EXCEEDED = "hold-exceeded"

    ACCOUNT_NOT_EMPTY = "account-not-empty"
    BALANCE_OUT_OF_RANGE = "balance-out-of-range"
    INSUFFICIENT_FUNDS = "insufficient-funds"

    BATCH_ABORTED = "batch-aborted"


FINAL: Final = frozenset(
    {
        Code.HOLD_CAPTURED,
        Code.HOLD_RELEASED,
        Code.HOLD_EXPIRED,
        Code.HOLD_REFUSED,
        Code.HOLD_EXCEEDED,
        Code.VOUCHER_ALREADY_REVERSED,
        Code.ACCOUNT_CLOSED,
        Code.ACCOUNT_FROZEN,
        Code.BALANCE_OUT_OF_RANGE,
        Code.INSUFFICIENT_FUNDS,
    }
)
"""Codes of final refusals, which depend on the state of the books. A final refusal is recorded with the id of the
request, so that a late retry cannot move money after the caller has got a refusal. After any other refusal the id can
be used again."""


class Refusal(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The reason of a rejection. `account` and `field` name the cause. A refusal never contains a balance."""

    code: Code
    detail: str
    account: str | None = None
    field: str | None = None

    @property
    def final(self) -> bool:
        return self.code in FINAL


encode_refusal = msgspec.json.Encoder(order="deterministic").encode
decode_refusal = msgspec.json.Decoder(Refusal).decode
