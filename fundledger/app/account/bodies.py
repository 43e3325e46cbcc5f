"""Request bodies of the account service: vouchers, batches, accounts, holds, and their ids."""

import re
from typing import Annotated, Final, Literal

import msgspec

from fundledger.app.http.bodies.decoding import ID_PATTERN, explain, refuse_duplicate_keys, uuid_reader
from fundledger.app.http.problems import malformed
from fundledger.ledger.model.voucher import AMOUNT_MAX, ENTRIES_MAX, ENTRIES_MIN

BATCH_MAX: Final = 5000
ATOMIC_ENTRIES_MAX: Final = 4 * BATCH_MAX
"""Limit of all entries of an atomic batch, which is decided without interruption, at 5 us an entry."""
_is_id = re.compile(ID_PATTERN).match
_is_type = re.compile(r"[a-z_]{1,32}\Z").match

Id = Annotated[str, msgspec.Meta(pattern=ID_PATTERN, description="1 to 128 of `[A-Za-z0-9:_.-]`")]
Amount = Annotated[int, msgspec.Meta(ge=1, le=AMOUNT_MAX, description="in minor units")]
Reason = Annotated[str, msgspec.Meta(max_length=1000, pattern=r"^[^\x00]*\Z")]
Reference = Annotated[str, msgspec.Meta(min_length=1, max_length=256, pattern=r"^[^\x00]*\Z")]


class EntryBody(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    account: str
    side: Literal["debit", "credit"]
    amount: Amount


class VoucherBody(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    id: str
    type: str
    entries: Annotated[list[EntryBody], msgspec.Meta(min_length=ENTRIES_MIN, max_length=ENTRIES_MAX)]
    reference: Reference | None = None
    metadata: msgspec.Raw = msgspec.Raw(b"")
    ticket: Annotated[str, msgspec.Meta(max_length=1024)] | None = None


class BatchBody(msgspec.Struct, forbid_unknown_fields=True):
    vouchers: Annotated[list[VoucherBody], msgspec.Meta(min_length=1, max_length=BATCH_MAX)]
    atomic: bool | msgspec.UnsetType = msgspec.UNSET


Posting = Literal["direct", "buffered"]


class AccountBody(msgspec.Struct, forbid_unknown_fields=True):
    id: Id
    owner: Id
    type: str
    currency: Annotated[str, msgspec.Meta(pattern=r"^[A-Z]{3}\Z", description="ISO 4217")]
    metadata: msgspec.Raw = msgspec.Raw(b"")
    posting: Posting = "direct"


class ReverseBody(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    reference: Reference | None = None
    metadata: msgspec.Raw = msgspec.Raw(b"")


class HoldBody(msgspec.Struct, forbid_unknown_fields=True):
    id: Id
    account: Id
    amount: Amount
    expires_at: str | None = None


class CaptureBody(msgspec.Struct, forbid_unknown_fields=True):
    voucher: VoucherBody


class FreezeBody(msgspec.Struct, forbid_unknown_fields=True):
    reason: Reason = ""
    scope: Literal["debits", "all"] = "debits"


class PolicyBody(msgspec.Struct, forbid_unknown_fields=True):
    posting: Posting
    reason: Reason = ""


class ReasonBody(msgspec.Struct, forbid_unknown_fields=True):
    reason: Reason = ""


_decode_voucher = msgspec.json.Decoder(VoucherBody).decode
_NO_METADATA: Final = msgspec.structs.fields(VoucherBody)[4].default
voucher_id = uuid_reader("a voucher id")


def decode_voucher(body: bytes) -> VoucherBody:
    """Return the decoded voucher body. Raises BadRequest (400).

    Duplicate keys within `metadata` are detected later, by `decoding.metadata`.
    """
    try:
        voucher = _decode_voucher(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        explain(error)
    if body.count(b'"') != quotes_of_voucher(voucher):
        refuse_duplicate_keys(body)
    return voucher


def quotes_of_voucher(voucher: VoucherBody) -> int:
    """Return the number of quotation marks in the voucher's body, without duplicate keys and escaped strings."""
    quotes = 10 + 10 * len(voucher.entries)
    if voucher.reference is not None:
        quotes += 4
    if voucher.ticket is not None:
        quotes += 4
    if voucher.metadata is not _NO_METADATA:
        quotes += 2 + bytes(voucher.metadata).count(b'"')
    return quotes


def account_id(text: str, field: str) -> str:
    """Return the text if it is a valid account or hold id. Raises BadRequest (400)."""
    if not _is_id(text):
        raise malformed("an account id has 1 to 128 of [A-Za-z0-9:_.-]", field=field)
    return text


def voucher_type(text: str) -> str:
    """Return the text if it is a valid voucher type. Raises BadRequest (400)."""
    if not _is_type(text):
        raise malformed("a voucher type has 1 to 32 of [a-z_]", field="type")
    return text
