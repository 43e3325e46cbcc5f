"""Store of the fund service: integrity findings, one for each row that did not match its MAC, in a MAC chain.

The MAC of a finding also covers the MAC of the previous finding. The head of the chain stores the number of findings
and the last MAC, and has a MAC of its own. So `verify` detects a finding that was edited, omitted or deleted.
"""

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from fundledger.fund.store.queries import SQL
from fundledger.security import canonical
from fundledger.security.keys import KeyFault, Keys
from fundledger.security.row_macs import microseconds

NAME: Final = "fund.integrity_findings"


class Finding(msgspec.Struct, frozen=True):
    """The kind, the key and the content (JSON) of a row that does not match its MAC."""

    kind: str
    key: str
    evidence: str


async def write_findings(connection: Any, keys: Keys, found: Sequence[Finding]) -> int:
    """Insert the findings that are not stored yet, and return the number of new findings. Call this in a transaction.
    Locks the head of the chain until the transaction ends. Raises KeyFault if the head does not match its MAC, and what
    asyncpg raises.
    """
    there = await connection.fetch(SQL["known_findings"], [one.kind for one in found], [one.key for one in found])
    known = {(row["kind"], row["key"]) for row in there}
    if all((one.kind, one.key) in known for one in found):
        return 0
    head = await connection.fetchrow(SQL["lock_findings"])
    if head is None or not head_verifies(head, keys):
        raise KeyFault("the head of the chain of findings (fund.findings_head) does not match its MAC")
    # Another process may have inserted findings before the head was locked.
    there = await connection.fetch(SQL["known_findings"], [one.kind for one in found], [one.key for one in found])
    known = {(row["kind"], row["key"]) for row in there}
    seq, mac, key, new = head["seq"], head["last_mac"], keys.current, 0
    for one in found:
        if (one.kind, one.key) in known:
            continue
        known.add((one.kind, one.key))
        at_us = time.time_ns() // 1000
        seq, new = seq + 1, new + 1
        mac = key.tag(canonical.finding(seq, one.kind, one.key, 0, 0, 0, one.evidence, at_us, mac, key.version))
        at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at_us)
        await connection.execute(SQL["write_finding"], seq, one.kind, one.key, one.evidence, at, key.version, mac)
    if new:
        sealed = key.tag(canonical.chain_head(NAME, seq, mac, key.version))
        await connection.execute(SQL["move_findings"], seq, mac, key.version, sealed)
    return new


def head_verifies(row: Any, keys: Keys) -> bool:
    """Return whether the head of the chain matches its MAC. The head of an empty chain has no MAC. Raises KeyFault."""
    if row["mac"] is None:
        return bool(row["seq"] == 0 and row["last_mac"] == canonical.GENESIS)
    message = canonical.chain_head(NAME, row["seq"], row["last_mac"], row["key_version"])
    return keys.by_version(row["key_version"]).matches(message, row["mac"])


def finding_verifies(row: Any, previous: bytes, keys: Keys) -> bool:
    """Return whether a finding matches its MAC, which also covers `previous`, the MAC of the previous finding. Raises
    KeyFault.
    """
    at_us = microseconds(row["at"])
    assert at_us is not None
    message = canonical.finding(
        row["seq"], row["kind"], row["key"], 0, 0, 0, row["evidence"], at_us, previous, row["key_version"]
    )
    return keys.by_version(row["key_version"]).matches(message, row["mac"])
