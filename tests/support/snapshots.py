"""Snapshots with a number in every field, so that a field missing from a sum is noticed."""

from typing import Any, get_args, get_origin

import msgspec

from fundledger.app.account.metrics import Snapshot
from fundledger.app.http.admission.hot_keys import Window
from fundledger.app.http.metrics.counters import REQUEST_S, SECONDS, Histogram

BOUNDS = {"latencies": REQUEST_S, "commits": SECONDS}
TEXTS = {"mode": "fallback"}


def filled(worker: str, n: int) -> Snapshot:
    """Return a snapshot in which every number is `n` or derived from it."""
    snapshot = Snapshot()
    _fill(snapshot, n)
    snapshot.worker = worker
    return snapshot


def _fill(struct: msgspec.Struct, n: int) -> msgspec.Struct:
    for field in msgspec.structs.fields(struct):
        setattr(struct, field.name, _value(field.name, field.type, getattr(struct, field.name), n))
    return struct


def _value(name: str, type_: Any, now: Any, n: int) -> Any:
    if type_ is str:
        return TEXTS.get(name, f"{name}:{n}")
    if type_ in (int, float):
        return type_(n)
    if get_origin(type_) is list:
        return [n] * len(now)
    if get_origin(type_) is tuple:
        return tuple(argument(n) for argument in get_args(type_))
    if get_origin(type_) is dict:
        of = get_args(type_)[1]
        if of is Histogram:
            return {"a b c d": Histogram([n] * (len(BOUNDS[name]) + 1), float(n))}
        if of is Window:
            return {kind: Window(n, {"a": n}) for kind in ("caller", "merchant", "account")}
        key = "hot" if name == "heat" else "a b c d"
        return {key: _value(name, of, of() if isinstance(of, type) and issubclass(of, msgspec.Struct) else None, n)}
    assert isinstance(now, msgspec.Struct), f"{name}: {type_}"
    return _fill(now, n)
