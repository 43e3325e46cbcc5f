"""Request bodies of the account service: vouchers, batches, accounts, holds, and their ids."""

import re
from typing import Annotated, Final, Literal

import msgspec

from fundledger.app.http.bodies.decoding import explain, refuse_duplicate_keys, uuid_reader
from fundledger.app.http.problems import malformed
from fundledger.json_values import ID_PATTERN, UuidText, about
from fundledger.ledger.model.chart import CHART
from fundledger.ledger.model.voucher import AMOUNT_MAX, ENTRIES_MAX, ENTRIES_MIN

BATCH_MAX: Final = 5000
ATOMIC_ENTRIES_MAX: Final = 4 * BATCH_MAX
"""Maximum number of entries in an atomic batch. Deciding the batch blocks the event loop for 5 us per entry."""
_TYPE: Final = r"[a-z_]{1,32}"
_is_id = re.compile(ID_PATTERN).match
_is_type = re.compile(rf"{_TYPE}\Z").match
_DEBITED: Final = ", ".join(f"`{type_.name}`" for type_ in CHART.values() if type_.normal < 0)
_MEANINGS: Final = "\n".join(f"`{type_.name}`: {type_.meaning}" for type_ in CHART.values())

Id = Annotated[str, msgspec.Meta(pattern=ID_PATTERN, description="1 to 128 of `[A-Za-z0-9:_.-]`")]
Amount = Annotated[int, msgspec.Meta(ge=1, le=AMOUNT_MAX, description="in minor units")]
Reason = Annotated[str, msgspec.Meta(max_length=1000, pattern=r"^[^\x00]*\Z", description="stored with the change")]
Reference = Annotated[str, msgspec.Meta(min_length=1, max_length=256, pattern=r"^[^\x00]*\Z")]
Metadata = Annotated[msgspec.Raw, about("a JSON object of at most 4,096 bytes", type=["object", "null"], default=None)]
Ticket = Annotated[str, msgspec.Meta(max_length=1024, description="accepted and ignored in this version")]
Atomic = Annotated[
    bool, about("true: all vouchers are posted, or none; false or absent: each voucher is decided separately")
]
Posting = Annotated[
    Literal["direct", "buffered"],
    about("`buffered`: credits are `pending` for a moment, and are posted in groups"),
]


class EntryBody(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    account: Annotated[str, about("id of an open account", pattern=ID_PATTERN)]
    side: Annotated[Literal["debit", "credit"], about(f"a debit adds to {_DEBITED}; a credit adds to all others")]
    amount: Amount


class VoucherBody(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    id: Annotated[UuidText, about("the idempotency key; it never expires")]
    type: Annotated[str, about("defined by the caller", pattern=f"^{_TYPE}$")]
    entries: Annotated[
        list[EntryBody],
        msgspec.Meta(
            min_length=ENTRIES_MIN,
            max_length=ENTRIES_MAX,
            description="total debits equal total credits; all accounts are open and have the same currency",
        ),
    ]
    reference: Annotated[Reference | None, about("free text; part of the voucher's content")] = None
    metadata: Metadata | msgspec.UnsetType = msgspec.UNSET
    ticket: Ticket | None = None


class BatchBody(msgspec.Struct, forbid_unknown_fields=True):
    vouchers: Annotated[list[VoucherBody], msgspec.Meta(min_length=1, max_length=BATCH_MAX)]
    atomic: Atomic | msgspec.UnsetType = msgspec.UNSET


class AccountBody(msgspec.Struct, forbid_unknown_fields=True):
    id: Id
    owner: Annotated[Id, about("the owner of the account; all accounts of one owner are stored together")]
    type: Annotated[str, about(_MEANINGS, enum=list(CHART))]
    currency: Annotated[str, msgspec.Meta(pattern=r"^[A-Z]{3}\Z", description="ISO 4217")]
    metadata: Metadata | msgspec.UnsetType = msgspec.UNSET
    posting: Posting = "direct"


class ReverseBody(msgspec.Struct, forbid_unknown_fields=True):
    id: Annotated[UuidText, about("id of the reversal, which is itself a voucher")]
    reference: Annotated[Reference | None, about("free text; part of the reversal's content")] = None
    metadata: Metadata | msgspec.UnsetType = msgspec.UNSET


class HoldBody(msgspec.Struct, forbid_unknown_fields=True):
    id: Id
    account: Id
    amount: Amount
    expires_at: Annotated[
        str | None, about("must be in the future; without it, the hold never expires", format="date-time")
    ] = None


class CaptureBody(msgspec.Struct, forbid_unknown_fields=True):
    voucher: VoucherBody


class FreezeBody(msgspec.Struct, forbid_unknown_fields=True):
    reason: Reason = ""
    scope: Annotated[
        Literal["debits", "all"], about("`debits`: debits are refused; `all`: all entries are refused")
    ] = "debits"


class PolicyBody(msgspec.Struct, forbid_unknown_fields=True):
    posting: Posting
    reason: Reason = ""


class ReasonBody(msgspec.Struct, forbid_unknown_fields=True):
    reason: Reason = ""


_decode_voucher = msgspec.json.Decoder(VoucherBody).decode
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
    """Return how many quotation marks the body of this voucher has if it has no duplicate keys and no escapes."""
    quotes = 10 + 10 * len(voucher.entries)
    if voucher.reference is not None:
        quotes += 4
    if voucher.ticket is not None:
        quotes += 4
    if voucher.metadata is not msgspec.UNSET:
        quotes += 2 + bytes(voucher.metadata).count(b'"')
    return quotes


def account_id(text: str, field: str) -> str:
    """Return the text if it is a valid id of an account or hold. Raises BadRequest (400)."""
    if not _is_id(text):
        raise malformed("an account id has 1 to 128 of [A-Za-z0-9:_.-]", field=field)
    return text


def voucher_type(text: str) -> str:
    """Return the text if it is a valid voucher type. Raises BadRequest (400)."""
    if not _is_type(text):
        raise malformed("a voucher type has 1 to 32 of [a-z_]", field="type")
    return text
