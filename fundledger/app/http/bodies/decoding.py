"""Decoding of HTTP request bodies: typed, strict, bounded. Errors name the unknown field, wrong type or repeated key.

The decoding time is linear in the length of a body. At most BODY_BYTES_MAX bytes are decoded in one piece: a longer
body is split into its items (`batch_decoding`).
"""

import contextlib
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from typing import Annotated, Any, Final, NoReturn, TypeVar

import msgspec
from asyncpg.pgproto.pgproto import UUID

from fundledger.app.http.problems import BadRequest, cut, malformed
from fundledger.currencies import EXPONENTS

BODY_BYTES_MAX: Final = 64 << 10
"""Maximum length in bytes of a body with one item, and of each item of a longer body."""
METADATA_BYTES_MAX: Final = 4096
_PLAIN_BYTES_MAX: Final = 512
_decode_texts = msgspec.json.Decoder(dict[str, str]).decode
_encode_sorted = msgspec.json.Encoder(order="sorted").encode
"""Used with `_decode_texts` to check fast whether metadata that contains only texts is already canonical. Metadata that
the fund service sends is canonical. The check takes 1.1 us, the general conversion 4.6 us.
"""

_Instant = Annotated[datetime, msgspec.Meta(tz=True)]
T = TypeVar("T")
_AT: Final = " - at `$"
_is_path = re.compile(r"[A-Za-z0-9_.\[\]]{0,200}\Z").match
_NAMED: Final = ("Object contains unknown field `", "Object missing required field `")
_VALUE: Final = "Invalid enum value "
_OWN_RULE: Final = re.compile(r"([a-z_]{1,40}) (?:must|is) ")
"""The beginning of the error of a rule that a request type checks itself: it names a member. Errors of the decoder
begin with a capital letter.
"""
_has_nul = re.compile(r"(?<!\\)(?:\\\\)*\\u0000").search


def decoder(type_: type[T], quotes: Callable[[T], int] | None = None) -> Callable[[bytes], T]:
    """Return a decoder of bodies of at most BODY_BYTES_MAX bytes. The decoder raises BadRequest (400).

    An empty body is decoded as an empty object. `quotes(value)` returns how many quotation marks the body of a decoded
    value has if no key is repeated and no string is escaped. A repeated key adds at least two quotation marks. So an
    equal count proves that no key is repeated. The keys are compared only if the counts differ.
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


def long_decoder(type_: type[T], bytes_max: int) -> Callable[[bytes], T]:
    """Return a decoder of bodies that are one flat object with a long text, of at most `bytes_max` bytes. The decoder
    raises BadRequest (400).
    """
    decode_ = msgspec.json.Decoder(type_).decode

    def decode(body: bytes) -> T:
        if len(body) > bytes_max:
            raise malformed(f"the body has more than {bytes_max} bytes")
        try:
            decoded = decode_(body or b"{}")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            explain(error)
        # The object is flat, so this costs one call of `_once`, however long its texts are.
        json.loads(body or b"{}", object_pairs_hook=_once)
        return decoded

    return decode


def quotes_of_flat(struct: msgspec.Struct) -> int:
    """Return the minimum number of quotation marks in a JSON object of texts and numbers: `quotes` for `decoder`."""
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
    """Return the keys and values of a JSON object as a dict. Raises BadRequest (400) for a repeated key."""
    found = dict(items)
    if len(found) != len(items):
        seen = set()
        for key, _ in items:
            if key in seen:
                raise malformed(f"the key {cut(key)!r} is repeated in one object", field=cut(key))
            seen.add(key)
    return found


def _refuse_long_metadata(decoded: object) -> None:
    """Raise BadRequest (400) for long metadata, so that only short metadata is searched for duplicate keys."""
    given = getattr(decoded, "metadata", None)
    if type(given) is msgspec.Raw and len(bytes(given)) > METADATA_BYTES_MAX:
        raise _too_much_metadata()


def _too_much_metadata() -> BadRequest:
    return malformed(f"metadata has more than {METADATA_BYTES_MAX} bytes", field="metadata")


def refuse_duplicate_keys(body: bytes) -> None:
    """Raise BadRequest (400) for duplicate keys. The body must be short: each object in it costs a Python call."""
    assert len(body) <= BODY_BYTES_MAX
    try:
        json.loads(body, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise malformed(f"the body is not valid JSON: {error}") from None


def explain(error: Exception, item: str = "") -> NoReturn:
    """Raise BadRequest (400) for an error of the decoder. `item`: the position of the decoded part in the body, in the
    form `vouchers[1]`.

    The text of the error contains names and values that the caller chose. A pattern could match inside such a name or
    value, so the location is searched from the end of the text. Long names and values are shortened.
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
    own = _OWN_RULE.match(text)
    if own is not None:
        field = f"{where}.{own[1]}" if where else own[1]
    raise malformed(f"{text} - at `{where}`" if where else text, field=field or None) from None


def uuid_reader(what: str) -> Callable[[str], UUID]:
    """Return a function that parses the `id` of a body or a path. `what`: the id's name in a BadRequest (400)."""

    def read(text: str) -> UUID:
        try:
            parsed = UUID(text)
        except ValueError:
            raise malformed(f"{what} must be a UUID", field="id") from None
        canonical = str(parsed)
        if canonical != text and canonical != text.lower():
            raise malformed(f"{what} must be a UUID of 36 characters", field="id")
        return parsed

    return read


def known_currency(code: str, field: str = "currency") -> str:
    """Return the code if ISO 4217 defines it with a minor unit. Raises BadRequest (400, `currency-unknown`)."""
    if code not in EXPONENTS:
        detail = f"{code} is not an ISO 4217 code of a currency with a minor unit"
        raise BadRequest(400, "currency-unknown", "Unknown currency", detail, field=field)
    return code


def metadata(raw: msgspec.Raw | msgspec.UnsetType) -> str | None:
    """Return metadata as canonical JSON (sorted keys, no blanks), None if absent or null. Raises BadRequest (400)."""
    given = b"null" if raw is msgspec.UNSET else bytes(raw)
    if given == b"null":
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
        raise bad("must be a JSON object")
    if "\\u0000" in text and _has_nul(text):
        raise bad("may not contain the character U+0000")
    return text


def _same_number(text: str, value: float) -> bool:
    """Return whether the double `value` equals the number `text`. If it does not, converting `text` has rounded it."""
    try:
        return Decimal(text) == Decimal(repr(value))
    except ArithmeticError:
        return False


def instant(text: str, field: str) -> datetime:
    """Parse an RFC 3339 instant, and return it in UTC. Raises BadRequest (400), which names `field`."""
    try:
        return msgspec.convert(text, _Instant).astimezone(UTC)
    except (msgspec.ValidationError, OverflowError):
        raise malformed("send a time as an RFC 3339 instant, such as 2026-01-31T12:00:00Z", field=field) from None
