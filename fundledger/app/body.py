"""Request bodies: typed, strict, bounded. Unknown fields, wrong types and duplicate keys are reported by field name.

The work is linear in the bytes of a body, and Python code sees at most BODY_BYTES_MAX of them in one piece: a longer
body is split into its items by the decoder (`many`).
"""

import contextlib
import json
import re
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from functools import cache
from typing import Annotated, Any, Final, Literal, NoReturn, TypeVar

import msgspec
from asyncpg.pgproto.pgproto import UUID

from fundledger.app.problems import BadRequest, cut, malformed
from fundledger.currencies import EXPONENTS
from fundledger.ledger import clock
from fundledger.ledger.voucher import AMOUNT_MAX, ENTRIES_MAX, ENTRIES_MIN

ID_PATTERN: Final = r"^[A-Za-z0-9:_.-]{1,128}\Z"
BATCH_MAX: Final = 5000
ATOMIC_ENTRIES_MAX: Final = 4 * BATCH_MAX
"""Of all vouchers of an atomic batch: it is decided in one piece, at 5 us an entry."""
BODY_BYTES_MAX: Final = 64 << 10
"""Of one voucher, order or account, also as an item of a longer body."""
METADATA_BYTES_MAX: Final = 4096
_PLAIN_BYTES_MAX: Final = 512
_decode_texts = msgspec.json.Decoder(dict[str, str]).decode
_encode_sorted = msgspec.json.Encoder(order="sorted").encode
"""Of an object of texts that is canonical already, such as each voucher of an order has: 1.1 us in the place of 4.6."""
_is_id = re.compile(ID_PATTERN).match
_is_type = re.compile(r"[a-z_]{1,32}\Z").match

Id = Annotated[str, msgspec.Meta(pattern=ID_PATTERN, description="1 to 128 of `[A-Za-z0-9:_.-]`")]
Amount = Annotated[int, msgspec.Meta(ge=1, le=AMOUNT_MAX, description="in minor units")]
VoucherId = Annotated[str, msgspec.Meta(extra_json_schema={"format": "uuid"})]
Reason = Annotated[str, msgspec.Meta(max_length=1000, pattern=r"^[^\x00]*\Z")]
Reference = Annotated[str, msgspec.Meta(min_length=1, max_length=256, pattern=r"^[^\x00]*\Z")]
Metadata = Annotated[msgspec.Raw, msgspec.Meta(description="a JSON object of at most 4,096 bytes")]


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


_Instant = Annotated[datetime, msgspec.Meta(tz=True)]
T = TypeVar("T")
_decode_voucher = msgspec.json.Decoder(VoucherBody).decode
_NO_METADATA: Final = msgspec.structs.fields(VoucherBody)[4].default
_AT: Final = " - at `$"
_is_path = re.compile(r"[A-Za-z0-9_.\[\]]{0,200}\Z").match
_NAMED: Final = ("Object contains unknown field `", "Object missing required field `")
_VALUE: Final = "Invalid enum value "
_has_nul = re.compile(r"(?<!\\)(?:\\\\)*\\u0000").search


def decode_voucher(body: bytes) -> VoucherBody:
    """Keys that stand twice within `metadata` are refused by `metadata`. Raises BadRequest (400)."""
    try:
        voucher = _decode_voucher(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        explain(error)
    if body.count(b'"') != quotes_of_voucher(voucher):
        refuse_duplicate_keys(body)
    return voucher


def decoder(type_: type[T], quotes: Callable[[T], int] | None = None) -> Callable[[bytes], T]:
    """Return a decoder of bodies of at most BODY_BYTES_MAX; an empty one is an empty object. Raises BadRequest (400).

    `quotes`: the number of quotation marks that a body has at least when no key stands twice, as of
    `quotes_of_voucher`.
    """
    decode_ = msgspec.json.Decoder(type_).decode

    def decode(body: bytes) -> T:
        if len(body) > BODY_BYTES_MAX:
            raise malformed(f"the body has more than {BODY_BYTES_MAX} bytes")
        try:
            decoded = decode_(body or b"{}")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            explain(error)
        if quotes is None or body.count(b'"') != quotes(decoded):
            _refuse_long_metadata(decoded)
            refuse_duplicate_keys(body or b"{}")
        return decoded

    return decode


def quotes_of_voucher(voucher: VoucherBody) -> int:
    """Return how many quotation marks the body of this voucher has if no key stands twice and no string is escaped.

    Every repeated key adds two, so an equal count proves that there is none; only an unequal one needs a closer look.
    """
    quotes = 10 + 10 * len(voucher.entries)
    if voucher.reference is not None:
        quotes += 4
    if voucher.ticket is not None:
        quotes += 4
    if voucher.metadata is not _NO_METADATA:
        quotes += 2 + bytes(voucher.metadata).count(b'"')
    return quotes


def quotes_of_flat(struct: msgspec.Struct) -> int:
    """The same of an object of texts and numbers only: the fewest that it can have been sent with."""
    quotes = 0
    for name, default in zip(struct.__struct_fields__, _defaults(type(struct)), strict=True):
        value = getattr(struct, name)
        if value != default:
            quotes += 4 if isinstance(value, str) else 2
    return quotes


@cache
def _defaults(struct: type[msgspec.Struct]) -> tuple[Any, ...]:
    return tuple([field.default for field in msgspec.structs.fields(struct)])


def _once(items: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON. Raises BadRequest (400) for a key that stands twice in it."""
    found = dict(items)
    if len(found) != len(items):
        seen = set()
        for key, _ in items:
            if key in seen:
                raise malformed(f"the key {cut(key)!r} stands twice in one object", field=cut(key))
            seen.add(key)
    return found


def _refuse_long_metadata(decoded: object) -> None:
    """Raises BadRequest (400). Before each value of a body is looked at: metadata may be all of it."""
    given = getattr(decoded, "metadata", None)
    if type(given) is msgspec.Raw and len(bytes(given)) > METADATA_BYTES_MAX:
        raise _too_much_metadata()


def _too_much_metadata() -> BadRequest:
    return malformed(f"metadata has more than {METADATA_BYTES_MAX} bytes", field="metadata")


def refuse_duplicate_keys(body: bytes) -> None:
    """Raises BadRequest (400). For bodies of BODY_BYTES_MAX at most: each object in it costs a call of Python."""
    assert len(body) <= BODY_BYTES_MAX
    try:
        json.loads(body, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise malformed(f"the body is not valid JSON: {error}") from None


def explain(error: Exception, item: str = "") -> NoReturn:
    """Raise BadRequest (400) for what the decoder found. `item`: where the decoded part stands, such as `vouchers[1]`.

    The decoder's text holds names and values of the caller, so no pattern is searched in it: the location is the last
    one, and what is repeated of the rest is cut.
    """
    text = str(error)
    if not isinstance(error, msgspec.ValidationError):
        raise malformed(f"the body is not valid JSON: {text}", field=item or None) from None
    path, at = "", text.rfind(_AT)
    if at >= 0 and _is_path(text, at + len(_AT), len(text) - 1):
        path, text = text[at + len(_AT) : -1], text[:at]
    if text.startswith(_VALUE):
        text = _VALUE + cut(text[len(_VALUE) :])
    where = (item + path).removeprefix(".")
    field = where
    for named in _NAMED:
        if text.startswith(named):
            name = cut(text[len(named) : -1])
            text = f"{named}{name}`"
            field = f"{where}.{name}" if where else name
    raise malformed(f"{text} - at `{where}`" if where else text, field=field or None) from None


def voucher_id(text: str, field: str = "id") -> UUID:
    """Raises BadRequest (400)."""
    try:
        parsed = UUID(text)
    except ValueError:
        raise malformed("a voucher id is a UUID", field=field) from None
    canonical = str(parsed)
    if canonical != text and canonical != text.lower():
        raise malformed("a voucher id is a UUID of 36 characters", field=field)
    return parsed


def account_id(text: str, field: str) -> str:
    """Raises BadRequest (400)."""
    if not _is_id(text):
        raise malformed("an account id has 1 to 128 of [A-Za-z0-9:_.-]", field=field)
    return text


def voucher_type(text: str) -> str:
    """Raises BadRequest (400)."""
    if not _is_type(text):
        raise malformed("a voucher type has 1 to 32 of [a-z_]", field="type")
    return text


def known_currency(code: str, field: str = "currency") -> str:
    """A code of ISO 4217 that has a minor unit. Raises BadRequest (400, `currency-unknown`)."""
    if code not in EXPONENTS:
        detail = f"{code} is not a currency of ISO 4217 that has a minor unit"
        raise BadRequest(400, "currency-unknown", "The currency is not known", detail, field=field)
    return code


def metadata(raw: msgspec.Raw) -> str | None:
    """A JSON object in canonical text (sorted keys, no blanks), None when there is none. Raises BadRequest (400)."""
    given = bytes(raw)
    if given in (b"", b"null"):
        return None

    def bad(why: str) -> BadRequest:
        return malformed(f"metadata {why}", field="metadata")

    def exact(text: str) -> float:
        value = float(text)
        if not _same_number(text, value):
            raise bad(f"has the number {cut(text)}, which JSON readers round: send it as a string")
        return value

    if len(given) <= _PLAIN_BYTES_MAX and b"\\" not in given and given.isascii():
        with contextlib.suppress(msgspec.MsgspecError):
            if _encode_sorted(_decode_texts(given)) == given:
                return given.decode()
    if len(given) > METADATA_BYTES_MAX:
        raise _too_much_metadata()
    try:
        value = json.loads(given, object_pairs_hook=_once, parse_float=exact)
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        text.encode()
    except (ValueError, RecursionError):
        raise bad("is not valid JSON") from None
    if not isinstance(value, dict):
        raise bad("is a JSON object")
    if "\\u0000" in text and _has_nul(text):
        raise bad("may not contain the character U+0000")
    return text


def _same_number(text: str, value: float) -> bool:
    """Return whether the number is stored as it was sent: a double may have fewer digits, or be 0."""
    try:
        return Decimal(text) == Decimal(repr(value))
    except ArithmeticError:
        return False


def instant(text: str, field: str) -> datetime:
    """An RFC 3339 instant, in UTC. Raises BadRequest (400)."""
    try:
        return clock.moment(clock.us(msgspec.convert(text, _Instant)))
    except (msgspec.ValidationError, OverflowError):
        raise malformed("a time is an RFC 3339 instant such as 2026-01-31T12:00:00Z", field=field) from None
