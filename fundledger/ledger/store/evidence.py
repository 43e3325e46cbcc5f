"""Evidence in the ledger's store: status changes of accounts, and findings. Each of the two tables is a chain.

The MAC of a row covers the MAC of the previous row. The head of the chain records the number of rows and the last MAC,
and has a MAC itself. The command `verify` therefore finds each row that was edited, removed or inserted, even at the
end of the chain. A transaction that adds a row locks the head until the transaction ends. The heads are locked after
all other rows: first the head of the findings, then the head of the events.
"""

from collections.abc import Sequence
from typing import Final

import asyncpg
import msgspec

from fundledger.ledger.model import clock
from fundledger.ledger.model.batch import SetStatus
from fundledger.ledger.store.queries import SQL
from fundledger.security import canonical
from fundledger.security.keys import Keys

EVENTS: Final = "account_events"
FINDINGS: Final = "integrity_findings"
Connection = asyncpg.Connection


class ChainBroken(Exception):
    """The head of a chain does not match its MAC. No row is added to the chain, so that the tampering stays visible."""


class Found(msgspec.Struct, frozen=True):
    """A finding: a row that did not verify, as JSON in `row`.

    If `subject` is None, the row is from `sub_accounts`. Otherwise `kind` and `subject` identify the row.
    """

    row: str
    kind: str = "sub_account"
    subject: str | None = None
    shard: int = 0
    account_number: int = 0
    slot: int = 0


class _Chain:
    """The head of a chain. The current transaction has locked the head."""

    def __init__(self, name: str, seq: int, last_mac: bytes) -> None:
        self.name = name
        self.seq = seq
        self.last_mac = last_mac


async def _locked(connection: "Connection[asyncpg.Record]", name: str, keys: Keys) -> _Chain:
    row = await connection.fetchrow(SQL["lock_chain"], name)
    if row is None or not head_verifies(row, keys):
        raise ChainBroken(f"the head of the chain of {name} does not match its MAC: run `fundledger verify`")
    return _Chain(name, row["seq"], row["last_mac"])


def head_verifies(row: asyncpg.Record, keys: Keys) -> bool:
    """Return whether the head of a chain matches its MAC. The head of an empty chain has no MAC. Raises KeyFault."""
    if row["mac"] is None:
        return bool(row["seq"] == 0 and row["last_mac"] == canonical.GENESIS)
    message = canonical.chain_head(row["name"], row["seq"], row["last_mac"], row["key_version"])
    return keys.by_version(row["key_version"]).matches(message, row["mac"])


async def _move(connection: "Connection[asyncpg.Record]", chain: _Chain, keys: Keys) -> None:
    key = keys.current
    mac = key.tag(canonical.chain_head(chain.name, chain.seq, chain.last_mac, key.version))
    await connection.execute(SQL["move_chain"], chain.name, chain.seq, chain.last_mac, key.version, mac)


async def write_events(connection: "Connection[asyncpg.Record]", keys: Keys, events: Sequence[SetStatus]) -> None:
    """Record status changes of accounts, in order. Raises ChainBroken, KeyFault. Locks the head of the chain."""
    chain = await _locked(connection, EVENTS, keys)
    for event in events:
        at_us = clock.now_us()
        chain.seq += 1
        chain.last_mac = keys.current.tag(
            canonical.event(
                chain.seq,
                event.account.number,
                event.status,
                event.reason,
                event.module,
                at_us,
                chain.last_mac,
                keys.current.version,
            )
        )
        await connection.execute(
            SQL["write_account_event"],
            event.account.number,
            event.status,
            event.reason,
            event.module,
            clock.moment(at_us),
            chain.seq,
            keys.current.version,
            chain.last_mac,
        )
    await _move(connection, chain, keys)


async def write_findings(connection: "Connection[asyncpg.Record]", keys: Keys, findings: Sequence[Found]) -> int:
    """Record findings. Return how many were recorded.

    A finding with a subject is not recorded if a finding of the same kind and subject exists. Raises ChainBroken,
    KeyFault. Locks the head of the chain.
    """
    findings = [found for found in findings if not await _is_found(connection, found)]
    if not findings:
        return 0
    chain = await _locked(connection, FINDINGS, keys)
    new = 0
    for found in findings:
        # Another worker may have recorded the finding before the head was locked.
        if await _is_found(connection, found):
            continue
        at_us = clock.now_us()
        chain.seq += 1
        new += 1
        place = (found.shard, found.account_number, found.slot)
        chain.last_mac = keys.current.tag(
            canonical.finding(
                chain.seq,
                found.kind,
                found.subject,
                *place,
                found.row,
                at_us,
                chain.last_mac,
                keys.current.version,
            )
        )
        await connection.execute(
            SQL["write_integrity_finding"],
            *place,
            found.row,
            found.kind,
            found.subject,
            clock.moment(at_us),
            chain.seq,
            keys.current.version,
            chain.last_mac,
        )
    if new:
        await _move(connection, chain, keys)
    return new


async def _is_found(connection: "Connection[asyncpg.Record]", found: Found) -> bool:
    if found.subject is None:
        return False
    return bool(await connection.fetchval(SQL["is_found"], found.kind, found.subject))


def event_message(row: asyncpg.Record, previous_mac: bytes) -> bytes:
    """Return the content that the MAC of a row of `account_events` covers."""
    return canonical.event(
        row["seq"],
        row["account_number"],
        row["status"],
        row["reason"],
        row["module"],
        clock.us(row["at"]),
        previous_mac,
        row["key_version"],
    )


def finding_message(row: asyncpg.Record, previous_mac: bytes) -> bytes:
    """Return the content that the MAC of a row of `integrity_findings` covers."""
    return canonical.finding(
        row["seq"],
        row["kind"],
        row["subject"],
        row["shard"] or 0,
        row["account_number"] or 0,
        row["slot"] or 0,
        row["evidence"],
        clock.us(row["at"]),
        previous_mac,
        row["key_version"],
    )


async def chain_old(connection: "Connection[asyncpg.Record]", keys: Keys, name: str, at_most: int) -> int:
    """Add to the chain at most `at_most` rows that were written before chains existed, oldest first.

    The content of the rows stays unchanged. Return how many rows were added. A retry is safe. Raises ChainBroken,
    KeyFault. Locks the head of the chain.
    """
    chain = await _locked(connection, name, keys)
    rows = await connection.fetch(SQL[f"{name}_to_chain"], at_most)
    key = keys.current
    for row in rows:
        chain.seq += 1
        fields = {**row, "seq": chain.seq, "key_version": key.version}
        message = event_message if name == EVENTS else finding_message
        chain.last_mac = key.tag(message(fields, chain.last_mac))  # type: ignore[arg-type]
        await connection.execute(SQL[f"chain_{name}"], row["id"], chain.seq, key.version, chain.last_mac)
    if rows:
        await _move(connection, chain, keys)
    return len(rows)
