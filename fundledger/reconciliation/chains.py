"""Reconciliation of the ledger's evidence chains: checks that no row was edited, inserted or deleted. The last rows of
a chain are included.
"""

from collections.abc import Sequence
from typing import Final

import asyncpg

from fundledger.ledger.store.evidence import EVENTS, FINDINGS, event_message, finding_message, head_verifies
from fundledger.reconciliation.reading import SQL, Connection, rows
from fundledger.reconciliation.report import Check
from fundledger.security import canonical
from fundledger.security.keys import Keys

CHAINS: Final = ("evidence_chained",)
_MESSAGES: Final = {EVENTS: event_message, FINDINGS: finding_message}


async def check_chains(checks: Sequence[Check], connection: Connection, keys: Keys) -> None:
    """Check each evidence chain from its first row to its head. `checks` has one element, to which
    findings are added.
    """
    (check,) = checks
    heads = {row["name"]: row for row in await connection.fetch(SQL["chains"])}
    for name in (EVENTS, FINDINGS):
        seq, mac = 0, canonical.GENESIS
        async for row in rows(connection, SQL[f"chained_{name}"]):
            check.rows += 1
            if row["layout"] == 1 and row["seq"] is None and row["mac"] is None:
                continue
            subject = f"{name} {row['id']}"
            if row["seq"] != seq + 1:
                check.differs(subject, f"seq {seq + 1}", f"seq {row['seq']}")
            _against_mac(check, subject, name, row, mac, keys)
            seq, mac = row["seq"] or seq + 1, row["mac"] or b""
        head = heads.get(name)
        if head is None or not _head_verifies(head, keys):
            check.differs(f"the head of {name}", "its MAC", "none" if head is None else "different content")
        elif (head["seq"], head["last_mac"]) != (seq, mac):
            check.differs(f"the end of {name}", f"{head['seq']} rows, the last as it was written", f"{seq} rows")


def _against_mac(check: Check, subject: str, name: str, row: asyncpg.Record, previous: bytes, keys: Keys) -> None:
    try:
        verifies = keys.by_version(row["key_version"]).matches(_MESSAGES[name](row, previous), row["mac"])
    except Exception as error:
        check.unreadable(subject, error)
        return
    if not verifies:
        check.differs(subject, "its MAC, chained to the previous row", "different content")


def _head_verifies(head: asyncpg.Record, keys: Keys) -> bool:
    try:
        return head_verifies(head, keys)
    except Exception:
        return False
