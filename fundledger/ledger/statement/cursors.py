"""Cursors of ledger statements. A cursor is the position at the end of a page.

The MAC of a cursor proves that the ledger has issued the cursor.
"""

import base64
import binascii
from typing import Final

import msgspec

from fundledger.ledger.model.account import Account
from fundledger.security.keys import KeyFault, Keys

_TAG_BYTES: Final = 16


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


def encode(keys: Keys, account: Account, cursor: Cursor) -> str:
    packed = msgspec.msgpack.encode(cursor)
    key = keys.current
    tag = key.tag(_message(account, packed))[:_TAG_BYTES]
    return base64.urlsafe_b64encode(key.version.to_bytes(2, "little") + tag + packed).decode().rstrip("=")


def decode(keys: Keys, account: Account, text: str) -> Cursor:
    """Verify and decode a cursor. Raises BadCursor if the MAC of the cursor does not match."""
    try:
        token = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
        key = keys.by_version(int.from_bytes(token[:2], "little"))
        tag, packed = token[2 : 2 + _TAG_BYTES], token[2 + _TAG_BYTES :]
        if key.tag(_message(account, packed))[:_TAG_BYTES] == tag:
            return msgspec.msgpack.decode(packed, type=Cursor)
    except (ValueError, binascii.Error, msgspec.DecodeError, KeyFault):
        pass
    raise BadCursor("this cursor was not issued for this account")


def _message(account: Account, packed: bytes) -> bytes:
    return b"cursor_2" + account.number.to_bytes(8, "little") + packed
