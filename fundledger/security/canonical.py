"""The bytes that a MAC covers.

Every message starts with an eight-byte domain tag that carries the version of its layout, so that the encoding of one
kind of row can never be read as another's. Fixed-width fields are little-endian without padding; a field of variable
length comes after its own length. Times are microseconds since 1970 (UTC), dates are proleptic ordinals. The shard is
placement, not content: re-homing an owner leaves every MAC valid.
"""

import struct
from collections.abc import Sequence
from functools import partial

GENESIS = bytes(32)
"""What the first entry of a sub-account is chained to."""

_SUB_ACCOUNT = struct.Struct("<8sqi3sqqqBqq32sH").pack
_ENTRY = struct.Struct("<8sqiq16sqqiq32sH").pack
_SUMMARY = struct.Struct("<8sqiqqqiq32sHI").pack
_BUFFERED = struct.Struct("<8sqqii16sqiqH").pack
_VOUCHER = struct.Struct("<8s16s32siqqH").pack
_HOLD = struct.Struct("<8sqiqqBqqqH").pack
_ACCOUNT = struct.Struct("<8sqqH").pack
_PAIR = struct.Struct("<4q").pack


sub_account = partial(_SUB_ACCOUNT, b"subacct1")
"""Fields in order: account number, slot, currency (3 bytes), posted, held, version, status, seq, posted_at_us,
MAC of the last entry, key version."""


def first_of(slots: int, buffered: bool, message: bytes) -> bytes:
    """The message of a sub-account that tells how many slots its account has, and whether its credits may be buffered;
    alone and unbuffered it has nothing to tell.
    """
    return message if slots == 1 and not buffered else message + (slots | buffered << 16).to_bytes(4, "little")


buffered = partial(_BUFFERED, b"buffer_1")
"""Fields in order: account number, batch, number and how many of the account's in this batch, voucher id (16 bytes),
amount, accounting date, posted_at_us, key version."""


entry = partial(_ENTRY, b"entry__1")
"""Fields in order: account number, slot, seq, voucher id (16 bytes), amount, balance after, accounting date,
posted_at_us, MAC of the previous entry, key version."""


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
    """An entry that stands for a line of each of these vouchers, whose ids come 16 bytes each."""
    fixed = (number, slot, seq, amount, balance_after, accounting_date, posted_at_us, previous_mac, key_version)
    return _SUMMARY(b"summary1", *fixed, len(voucher_ids) // 16) + voucher_ids


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
    """`lines` is flat: account number, signed amount, ...; `digest` covers what the caller asked for."""
    packed = _PAIR(*lines) if len(lines) == 4 else struct.pack(f"<{len(lines)}q", *lines)
    refused = b"" if refusal is None else refusal.encode()
    return b"%b%b%b%b%b" % (
        _VOUCHER(b"voucher1", voucher_id, digest, accounting_date, posted_at_us, batch, key_version),
        len(lines).to_bytes(4, "little"),
        packed,
        len(refused).to_bytes(4, "little"),
        refused,
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
