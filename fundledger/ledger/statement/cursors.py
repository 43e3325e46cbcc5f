"""Cursors of ledger statements. A cursor is the position at the end of a page.

The MAC of a cursor proves that the ledger has issued the cursor.
"""

import base64
import binascii
from typing import Final, TypeVar

import msgspec

from fundledger.ledger.model.account import Account
from fundledger.security.keys import KeyFault, Keys

_TAG_BYTES: Final = 16
_TRIAL: Final = b"trial__1"
_Decoded = TypeVar("_Decoded")


class BadCursor(Exception):
    """The cursor was never issued, or was issued for another account, period or level."""


class Cursor(msgspec.Struct, array_like=True, frozen=True):
    """The end of a page.

    - `after[slot]`: the last seq that was read on the slot
    - `parts`: `(slot, count, sum)` for each slot on which only some lines of the next entry were shown; `count` is the
      number of these lines; `sum` is their sum if the entry is a summary, otherwise 0
    - `ahead`: the sum of the shown lines minus the sum of the entries that were read; it differs from 0 if the page
      ends within a summary, or between the entries of a line that was taken from several slots
    """

    from_us: int | None
    to_us: int | None
    level: str
    after: list[int]
    parts: list[tuple[int, int, int]]
    ahead: int


class TrialCursor(msgspec.Struct, array_like=True, frozen=True):
    """The end of a page of the trial balance.

    - `asked_us`: the requested time, None if none was requested; `at_us`: the time of the trial balance
    - `after`: the last account of the page
    - `totals`: `(currency, debit, credit)` over all pages until now; the sums are big-endian bytes, because a sum may
      exceed 64 bits
    """

    asked_us: int | None
    at_us: int
    after: str
    totals: list[tuple[str, bytes, bytes]]


def encode(keys: Keys, account: Account, cursor: Cursor) -> str:
    return _signed(keys, _of_account(account), msgspec.msgpack.encode(cursor))


def decode(keys: Keys, account: Account, text: str) -> Cursor:
    """Verify and decode a cursor. Raises BadCursor if the MAC of the cursor does not match."""
    cursor = _verified(keys, _of_account(account), text, Cursor)
    if cursor is None:
        raise BadCursor("this cursor was not issued for this account")
    return cursor


def encode_trial(keys: Keys, cursor: TrialCursor) -> str:
    return _signed(keys, _TRIAL, msgspec.msgpack.encode(cursor))


def decode_trial(keys: Keys, text: str) -> TrialCursor:
    """Verify and decode a cursor of the trial balance. Raises BadCursor if the MAC of the cursor does not match."""
    cursor = _verified(keys, _TRIAL, text, TrialCursor)
    if cursor is None:
        raise BadCursor("this cursor was not issued for the trial balance")
    return cursor


def _of_account(account: Account) -> bytes:
    return b"cursor_2" + account.number.to_bytes(8, "little")


def _signed(keys: Keys, issued_for: bytes, packed: bytes) -> str:
    key = keys.current
    tag = key.tag(issued_for + packed)[:_TAG_BYTES]
    return base64.urlsafe_b64encode(key.version.to_bytes(2, "little") + tag + packed).decode().rstrip("=")


def _verified(keys: Keys, issued_for: bytes, text: str, type_: type[_Decoded]) -> _Decoded | None:
    try:
        token = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
        key = keys.by_version(int.from_bytes(token[:2], "little"))
        tag, packed = token[2 : 2 + _TAG_BYTES], token[2 + _TAG_BYTES :]
        if key.tag(issued_for + packed)[:_TAG_BYTES] == tag:
            return msgspec.msgpack.decode(packed, type=type_)
    except (ValueError, binascii.Error, msgspec.DecodeError, KeyFault):
        pass
    return None
