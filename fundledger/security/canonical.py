"""Canonical encodings for row MACs: for each kind of ledger row, the message (bytes) that the MAC of the row covers.

Every message starts with an eight-byte domain tag that contains the version of its layout, so the message of one kind
of row can never be read as the message of another kind. Fixed-width fields are little-endian without padding. Each
field of variable length is preceded by its length. Times are microseconds since 1970 (UTC), dates are proleptic
ordinals.

The column `layout` of a row is the version of its MAC. Layout 2 adds to layout 1: the module; the type and free text of
a voucher; the digest and voucher of a hold; the shard, slots and buffering of an account. Entries and buffered credits
have no such column: for these rows, a row without a module has layout 1 (ADR 0027).
"""

import struct
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Final

LAYOUT: Final = 2
"""Layout of new vouchers, holds and accounts."""

GENESIS = bytes(32)
"""The "previous MAC" of the first entry of a sub-account."""

_SUB_ACCOUNT = struct.Struct("<8sqi3sqqqBqq32sH").pack
_ENTRY = struct.Struct("<8sqiq16sqqiq32sH").pack
_SUMMARY = struct.Struct("<8sqiqqqiq32sHI").pack
_BUFFERED = struct.Struct("<8sqqii16sqiqH").pack
_VOUCHER = struct.Struct("<8s16s32siqqH").pack
_HOLD = struct.Struct("<8sqiqqBqqqH").pack
_ACCOUNT = struct.Struct("<8sqqH").pack
_PAIR = struct.Struct("<4q").pack
_VOUCHER_2 = struct.Struct("<8s16siqqBHI").pack
_HOLD_2 = struct.Struct("<8siqiqqBqqqH").pack
_ACCOUNT_2 = struct.Struct("<8sqiiBqH").pack
_EVENT = struct.Struct("<8sqqBq32sH").pack
_FINDING = struct.Struct("<8sqqiiq32sH").pack
_HEAD = struct.Struct("<8sq32sH").pack
_LENGTH = struct.Struct("<I").pack
_NOTHING = b"\xff\xff\xff\xff"
_NO_TEXTS = _NOTHING * 3 + b"\0" + _NOTHING
"""Encoding of the optional fields of a voucher without any of them: reference, metadata, hold, reversed voucher,
refusal."""


sub_account = partial(_SUB_ACCOUNT, b"subacct1")
"""Fields in order: account number, slot, currency (3 bytes), posted, held, version, status, seq, posted_at_us,
MAC of the last entry, key version."""


def first_of(slots: int, buffered: bool, message: bytes) -> bytes:
    """Return the message of a slot 0, extended by the account's number of slots and its buffering (yes or no).

    If the account has one slot and no buffering, the message is unchanged.
    """
    return message if slots == 1 and not buffered else message + (slots | buffered << 16).to_bytes(4, "little")


buffered = partial(_BUFFERED, b"buffer_1")
"""Fields in order: account number, batch, number of this credit among the account's credits of the batch, count of
these credits, voucher id (16 bytes), amount, accounting date, posted_at_us, key version.
"""


entry = partial(_ENTRY, b"entry__1")
"""Fields in order: account number, slot, seq, voucher id (16 bytes), amount, balance after, accounting date,
posted_at_us, MAC of the previous entry, key version."""


entry_2_fixed = partial(_ENTRY, b"entry__2")
"""The fixed part of an entry's message of layout 2, with the fields of `entry`. The module (`module_of`) follows."""


def entry_2(module: str, *fields: object) -> bytes:
    """Return the message of an entry of layout 2. `module` is its module; `fields` are the fields of `entry`."""
    return _ENTRY(b"entry__2", *fields) + _kept(module)


def buffered_2(module: str, *fields: object) -> bytes:
    """Return the message of a buffered credit of layout 2.

    `module` is the credit's module; `fields` are those of `buffered`.
    """
    return _BUFFERED(b"buffer_2", *fields) + _kept(module)


def summary(
    number: int,
    slot: int,
    seq: int,
    voucher_ids: bytes,
    amount: int,
    balance_after: int,
    accounting_date: int,
    posted_at_us: int,
    previous_mac: bytes,
    key_version: int,
) -> bytes:
    """Return the message of a summary of layout 1. `voucher_ids` has 16 bytes for each line of the summary."""
    fixed = (number, slot, seq, amount, balance_after, accounting_date, posted_at_us, previous_mac, key_version)
    return _SUMMARY(b"summary1", *fixed, len(voucher_ids) // 16) + voucher_ids


def summary_2(
    module: str,
    number: int,
    slot: int,
    seq: int,
    voucher_ids: bytes,
    amount: int,
    balance_after: int,
    accounting_date: int,
    posted_at_us: int,
    previous_mac: bytes,
    key_version: int,
) -> bytes:
    """Return the message of a summary of layout 2.

    All vouchers of the summary have the module `module`. The other parameters are those of `summary`.
    """
    fixed = (number, slot, seq, amount, balance_after, accounting_date, posted_at_us, previous_mac, key_version)
    return _SUMMARY(b"summary2", *fixed, len(voucher_ids) // 16) + voucher_ids + _kept(module)


def _text(text: str | None) -> bytes:
    """Return the encoding of a text: its length, then the text. The encodings of None and of an empty text differ."""
    if text is None:
        return _NOTHING
    encoded = text.encode()
    return _LENGTH(len(encoded)) + encoded


_kept = lru_cache(4096)(_text)
"""`_text`, cached for values that recur."""
module_of = _kept
"""Encodes the module, the last field of an entry's message."""


def _uuid(id_: bytes | None) -> bytes:
    return b"\0" if id_ is None else b"\x01" + id_


def voucher(
    voucher_id: bytes,
    digest: bytes,
    accounting_date: int,
    posted_at_us: int,
    batch: int,
    lines: Sequence[int],
    refusal: str | None,
    key_version: int,
) -> bytes:
    """Return the message of a voucher of layout 1.

    `lines` is a flat list: account number, signed amount, account number, and so on. `digest` covers the request.
    """
    packed = _PAIR(*lines) if len(lines) == 4 else struct.pack(f"<{len(lines)}q", *lines)
    refused = b"" if refusal is None else refusal.encode()
    return b"%b%b%b%b%b" % (
        _VOUCHER(b"voucher1", voucher_id, digest, accounting_date, posted_at_us, batch, key_version),
        len(lines).to_bytes(4, "little"),
        packed,
        len(refused).to_bytes(4, "little"),
        refused,
    )


def voucher_2(
    voucher_id: bytes,
    module: str,
    type_: str,
    digest: bytes,
    accounting_date: int,
    posted_at_us: int,
    batch: int,
    lines: Sequence[int],
    reference: str | None,
    metadata: str | None,
    hold_id: str | None,
    reverses: bytes | None,
    refusal: str | None,
    shared_id: bool,
    key_version: int,
) -> bytes:
    """Return the message of a voucher of layout 2.

    `lines` is a flat list, as in `voucher`. `reverses` is the id (16 bytes) of the reversed voucher. `shared_id`: True
    if the voucher was recorded when all modules shared one id space.
    """
    packed = _PAIR(*lines) if len(lines) == 4 else struct.pack(f"<{len(lines)}q", *lines)
    if reference is None and metadata is None and hold_id is None and reverses is None and refusal is None:
        rest = _NO_TEXTS
    else:
        rest = b"".join((_text(reference), _text(metadata), _text(hold_id), _uuid(reverses), _text(refusal)))
    return b"".join(
        (
            _VOUCHER_2(
                b"voucher2",
                voucher_id,
                accounting_date,
                posted_at_us,
                batch,
                shared_id,
                key_version,
                len(lines),
            ),
            packed,
            _kept(module),
            _kept(type_),
            _LENGTH(len(digest)),
            digest,
            rest,
        )
    )


def account(
    number: int,
    id_: str,
    owner: str,
    type_: str,
    currency: str,
    created_at_us: int,
    metadata: str | None,
    key_version: int,
) -> bytes:
    parts = [part.encode() for part in (id_, owner, type_, currency, metadata or "")]
    prefixed = b"".join(len(part).to_bytes(4, "little") + part for part in parts)
    return _ACCOUNT(b"account1", number, created_at_us, key_version) + prefixed


def account_2(
    number: int,
    id_: str,
    module: str | None,
    owner: str,
    type_: str,
    currency: str,
    shard: int,
    slots: int,
    buffered: bool,
    created_at_us: int,
    metadata: str | None,
    key_version: int,
) -> bytes:
    """Return the message of an account of layout 2.

    `module` is None for an account that was opened before modules were recorded.
    """
    fixed = _ACCOUNT_2(b"account2", number, shard, slots, buffered, created_at_us, key_version)
    return fixed + b"".join([_text(text) for text in (id_, module, owner, type_, currency, metadata)])


def hold(
    hold_id: str,
    account_number: int,
    slot: int,
    amount: int,
    captured: int,
    status: int,
    created_at_us: int,
    expires_at_us: int,
    ended_at_us: int,
    refusal: str | None,
    key_version: int,
) -> bytes:
    name = hold_id.encode()
    refused = b"" if refusal is None else refusal.encode()
    return b"%b%b%b%b%b" % (
        _HOLD(
            b"hold___1",
            account_number,
            slot,
            amount,
            captured,
            status,
            created_at_us,
            expires_at_us,
            ended_at_us,
            key_version,
        ),
        len(name).to_bytes(2, "little"),
        name,
        len(refused).to_bytes(4, "little"),
        refused,
    )


def hold_2(
    hold_id: str,
    module: str,
    shard: int,
    account_number: int,
    slot: int,
    amount: int,
    captured: int,
    status: int,
    digest: bytes,
    voucher_id: bytes | None,
    created_at_us: int,
    expires_at_us: int,
    ended_at_us: int,
    refusal: str | None,
    key_version: int,
) -> bytes:
    """Return the message of a hold of layout 2. `voucher_id`: the voucher (16 bytes) that captured the hold."""
    fixed = (shard, account_number, slot, amount, captured, status, created_at_us, expires_at_us, ended_at_us)
    return b"".join(
        (
            _HOLD_2(b"hold___2", *fixed, key_version),
            _text(hold_id),
            _kept(module),
            _LENGTH(len(digest)),
            digest,
            _uuid(voucher_id),
            _text(refusal),
        )
    )


def event(
    seq: int,
    account_number: int,
    status: int,
    reason: str,
    module: str,
    at_us: int,
    previous_mac: bytes,
    key_version: int,
) -> bytes:
    """Return the message of a change of an account's status, chained to the previous change."""
    return (
        _EVENT(b"acctevt1", seq, account_number, status, at_us, previous_mac, key_version)
        + _text(reason)
        + _text(module)
    )


def finding(
    seq: int,
    kind: str,
    subject: str | None,
    shard: int,
    account_number: int,
    slot: int,
    evidence: str,
    at_us: int,
    previous_mac: bytes,
    key_version: int,
) -> bytes:
    """Return the message of a finding (a row that did not verify), chained to the previous finding."""
    fixed = _FINDING(b"finding1", seq, account_number, shard, slot, at_us, previous_mac, key_version)
    return fixed + _text(kind) + _text(subject) + _text(evidence)


def chain_head(name: str, seq: int, last_mac: bytes, key_version: int) -> bytes:
    """Return the message of a chain's head: its name, length and last MAC."""
    return _HEAD(b"chainhd1", seq, last_mac, key_version) + _text(name)
