"""Requests of the fund service: the query of `GET /v1/orders`, its filters and its cursor."""

import re
from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from typing import Final, TypeVar

from fundledger.app.fund.requests.lookup import merchant_id
from fundledger.app.http.bodies.decoding import instant
from fundledger.app.http.problems import malformed
from fundledger.app.http.query import number
from fundledger.fund.model.order import Kind, State
from fundledger.fund.model.requests import AMOUNT_MAX
from fundledger.fund.store.order_lists import FROM, TO, OrderFilter, Place

CURSOR: Final = "^([0-9]{1,18})-([0-9]{1,18})$"
_MICROSECOND: Final = timedelta(microseconds=1)
_Name = TypeVar("_Name", bound=StrEnum)
_is_channel = re.compile(r"[A-Za-z0-9_.-]{1,32}\Z").match
_is_ref = re.compile(r"[^\x00]{1,128}\Z").match
_is_cursor = re.compile(CURSOR).fullmatch


def order_filter(query: Mapping[str, str]) -> OrderFilter:
    """Return the filter of a query. Raises BadRequest (400) that names the parameter."""
    channel, channel_ref = query.get("channel"), query.get("channel_ref")
    if channel is not None and not _is_channel(channel):
        raise malformed("channel must be 1 to 32 characters of [A-Za-z0-9_.-]", field="channel")
    if channel_ref is not None and not _is_ref(channel_ref):
        raise malformed("channel_ref must be 1 to 128 characters", field="channel_ref")
    return OrderFilter(
        max(instant(query["from"], "from"), FROM) if "from" in query else FROM,
        instant(query["to"], "to") if "to" in query else TO,
        merchant_id(query["merchant"], "merchant") if "merchant" in query else None,
        _one_of(Kind, query, "kind"),
        _one_of(State, query, "state"),
        channel,
        channel_ref,
        number(query, "amount", 1, 1, AMOUNT_MAX) if "amount" in query else None,
    )


def place_of(query: Mapping[str, str]) -> Place | None:
    """Return the place that the cursor of a query names, None without a cursor. Raises BadRequest (400)."""
    if "cursor" not in query:
        return None
    parts = _is_cursor(query["cursor"])
    if parts is None or int(parts[1]) > (TO - FROM) // _MICROSECOND:
        raise malformed("cursor must be the next_cursor of the previous page", field="cursor")
    return Place(FROM + int(parts[1]) * _MICROSECOND, int(parts[2]))


def cursor_of(place: Place | None) -> str | None:
    return None if place is None else f"{(place.created_at - FROM) // _MICROSECOND}-{place.seq}"


def _one_of(names: type[_Name], query: Mapping[str, str], name: str) -> _Name | None:
    try:
        return names(query[name]) if name in query else None
    except ValueError:
        raise malformed(f"{name} must be one of {', '.join(names)}", field=name) from None
