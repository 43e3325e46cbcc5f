"""The cursor of a statement: where a page ended, under a MAC, so that only what was given is taken back."""

import base64
import binascii
from typing import Final

import msgspec

from fundledger.ledger.account import Account
from fundledger.security.keys import KeyFault, Keys

_TAG_BYTES: Final = 16


class BadCursor(Exception):
    """The cursor is not one that was given, or was given for another account, period or level."""


class Cursor(msgspec.Struct, array_like=True, frozen=True):
    """`after`: up to which seq each slot was read, by slot. `parts`: on which slots lines of the summary behind that
    were shown as well, how many, and what they come to. `ahead`: what the lines that were shown come to, less what the
    slots were read to hold: of a line that lies over several slots, some may be read before it is shown.
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
    """Raises BadCursor."""
    try:
        token = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
        key = keys.by_version(int.from_bytes(token[:2], "little"))
        tag, packed = token[2 : 2 + _TAG_BYTES], token[2 + _TAG_BYTES :]
        if key.tag(_message(account, packed))[:_TAG_BYTES] == tag:
            return msgspec.msgpack.decode(packed, type=Cursor)
    except (ValueError, binascii.Error, msgspec.DecodeError, KeyFault):
        pass
    raise BadCursor("this cursor was not given for this account")


def _message(account: Account, packed: bytes) -> bytes:
    return b"cursor_2" + account.number.to_bytes(8, "little") + packed
