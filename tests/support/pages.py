"""Numbers of metrics pages and snapshots, to compare."""

from collections.abc import Mapping
from typing import Any

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from fundledger.app.account.metrics import Snapshot

Numbers = dict[str, float]


def counters(page: bytes) -> Numbers:
    """Return the series that must never decrease: counters, and the buckets, counts and sums of histograms."""
    return _samples(page, {"counter", "histogram"})


def gauges(page: bytes) -> Numbers:
    return _samples(page, {"gauge"})


def _samples(page: bytes, types: set[str]) -> Numbers:
    return {
        f"{sample.name}{sorted(sample.labels.items())}": sample.value
        for family in text_string_to_metric_families(page.decode())
        if family.type in types
        for sample in family.samples
    }


def label_values(page: bytes) -> set[str]:
    families = text_string_to_metric_families(page.decode())
    return {value for family in families for sample in family.samples for value in sample.labels.values()}


def series(page: bytes) -> int:
    return sum(not line.startswith(b"#") for line in page.splitlines())


def counted(snapshot: Snapshot) -> Numbers:
    """Return the counters of a snapshot by their path: as `counters`, fast enough to compare thousands."""
    copy = msgspec.json.decode(msgspec.json.encode(snapshot), type=Snapshot)
    copy.forget_gauges()
    return numbers(msgspec.to_builtins(copy))


def numbers(value: Any, path: str = "") -> Numbers:
    """Yield every number in a tree, by its path."""
    if isinstance(value, int | float):
        return {path: value}
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    return {name: number for key, item in below for name, number in numbers(item, f"{path}/{key}").items()}


def gone_back(before: Mapping[str, float], after: Mapping[str, float]) -> list[str]:
    """Return the series that decreased or disappeared."""
    return [
        f"{name}: {value}, then {after.get(name)}" for name, value in before.items() if not after.get(name, -1) >= value
    ]
