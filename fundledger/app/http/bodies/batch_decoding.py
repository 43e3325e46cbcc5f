"""Decoding of HTTP request bodies with many items, up to 8 MB: one pass finds the items, then each is decoded alone.

The bounds of a single request apply to each item. Other requests are served between items, so a valid body of 8 MB does
not block the loop for longer than a body of 64 KB. An invalid body is rejected at its first invalid item.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import msgspec

from fundledger.app.http.bodies.decoding import BODY_BYTES_MAX, explain, quotes_of_flat, refuse_duplicate_keys
from fundledger.app.http.problems import BadRequest, malformed

TURN_S: Final = 0.001
"""Time in seconds for which work on one long request continues before other requests are served."""
T = TypeVar("T")
_UNSET: Final = msgspec.UNSET


class LoopTurn:
    """The time slice of one long request on a worker's event loop."""

    __slots__ = ("_ends",)

    def __init__(self) -> None:
        self._ends = time.monotonic() + TURN_S

    def is_over(self) -> bool:
        """Return whether `next` must be awaited."""
        return time.monotonic() >= self._ends

    async def next(self) -> None:
        """Yield to other tasks, then begin a new time slice."""
        await asyncio.sleep(0)
        self._ends = time.monotonic() + TURN_S


def decoder_of_many(
    type_: type[msgspec.Struct], field: str, items_max: int, decode_item: Callable[[bytes, str], T]
) -> Callable[[bytes], Awaitable[tuple[Any, list[T]]]]:
    """Return a decoder of bodies of `type_`. The member `field` of such a body is a list of 1 to `items_max` items.

    The decoder returns an object with the other members, and the list of items. `decode_item(raw, where)` decodes one
    item of at most BODY_BYTES_MAX bytes. If an item is invalid, the decoder raises BadRequest (400), which names the
    position of the item. The decoder may be cancelled.
    """
    decode_unread = msgspec.json.Decoder(_unread(type_)).decode
    decode_outer = msgspec.json.Decoder(_outer(type_, field)).decode
    decode_items = msgspec.json.Decoder(_items(items_max)).decode

    async def decode(body: bytes) -> tuple[Any, list[T]]:
        try:
            # If a member is repeated, only its last value is decoded here. The length of that value is bounded.
            listed, outer = _separate(decode_unread(body or b"{}"), field)
            decoded = decode_outer(outer)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            explain(error)
        if body.count(b'"') - listed.count(b'"') != quotes_of_flat(decoded):
            _refuse_duplicate_keys(body, type_)
        try:
            found = decode_items(listed)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            explain(error, field)
        raws = [bytes(raw) for raw in msgspec.structs.astuple(found) if raw is not _UNSET]
        if not raws:
            raise malformed(f"Expected `array` of length >= 1 - at `{field}`", field=field)
        items = []
        turn = LoopTurn()
        for i, raw in enumerate(raws):
            if len(raw) > BODY_BYTES_MAX:
                raise malformed(f"an item must have at most {BODY_BYTES_MAX} bytes", field=f"{field}[{i}]")
            items.append(decode_item(raw, f"{field}[{i}]"))
            if turn.is_over():
                await turn.next()
        return decoded, items

    return decode


def item_decoder(type_: type[T], quotes: Callable[[T], int]) -> Callable[[bytes, str], T]:
    """Return the argument `decode_item` of `decoder_of_many`, for items of `type_`. `decoder` explains `quotes`."""
    decode_ = msgspec.json.Decoder(type_).decode

    def decode(raw: bytes, where: str) -> T:
        try:
            item = decode_(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            explain(error, where)
        if raw.count(b'"') != quotes(item):
            refuse_duplicate_keys(raw)
        return item

    return decode


def _unread(type_: type[msgspec.Struct]) -> type[msgspec.Struct]:
    """Return a struct type with the members of `type_`. Its decoder leaves the value of each member encoded."""
    fields: list[Any] = []
    for member in msgspec.structs.fields(type_):
        kind = msgspec.Raw if member.required else msgspec.Raw | msgspec.UnsetType
        fields.append((member.name, kind) if member.required else (member.name, kind, _UNSET))
    return msgspec.defstruct(type_.__name__, fields, forbid_unknown_fields=True)


def _separate(unread: msgspec.Struct, field: str) -> tuple[bytes, bytes]:
    """Return the encoded value of `field`, and the encoded object with an empty list instead of that value.

    Raises BadRequest (400) if another member has more than BODY_BYTES_MAX bytes.
    """
    members = []
    listed = b""
    for name in unread.__struct_fields__:
        value = getattr(unread, name)
        if value is _UNSET:
            continue
        raw = bytes(value)
        if name == field:
            listed, raw = raw, b"[]"
        elif len(raw) > BODY_BYTES_MAX:
            raise malformed(f"`{name}` must have at most {BODY_BYTES_MAX} bytes", field=name)
        members.append(b'"%b":%b' % (name.encode(), raw))
    return listed, b"{" + b",".join(members) + b"}"


def _outer(type_: type[msgspec.Struct], field: str) -> type[msgspec.Struct]:
    """Return a struct type with the members of `type_`. Its decoder leaves only the value of `field` encoded."""
    fields: list[Any] = []
    for member in msgspec.structs.fields(type_):
        kind = msgspec.Raw if member.name == field else member.type
        fields.append((member.name, kind) if member.required else (member.name, kind, member.default))
    return msgspec.defstruct(type_.__name__, fields, forbid_unknown_fields=True)


def _items(items_max: int) -> type[msgspec.Struct]:
    """Return the type of an array of at most `items_max` items. Its decoder leaves the items encoded.

    Decoding fails at the first excess item, so only a bounded part of a long list is read.
    """
    names = [f"_{i}" for i in range(items_max)]
    return msgspec.defstruct(
        "Items",
        [(name, msgspec.Raw | msgspec.UnsetType, _UNSET) for name in names],
        array_like=True,
        forbid_unknown_fields=True,
    )


def _refuse_duplicate_keys(body: bytes, type_: type[msgspec.Struct]) -> None:
    """Raise BadRequest (400) for a repeated member of the body. The error names the member if the body is short."""
    if len(body) <= BODY_BYTES_MAX:
        refuse_duplicate_keys(body)
    names = ", ".join(member.name for member in msgspec.structs.fields(type_))
    raise malformed(f"one of the keys {names} is repeated")


def at(bad: BadRequest, where: str) -> BadRequest:
    """Return the error of an item with a changed member `field`: the position `where` of the item is put before it."""
    members = msgspec.json.decode(bad.reply.body)
    field = f"{where}.{members['field']}" if "field" in members else where
    return BadRequest(bad.status, "malformed", members["title"], members["detail"], field=field)
