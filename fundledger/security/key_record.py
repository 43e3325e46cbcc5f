"""Key record: the fingerprints of the MAC keys with which a database was written, stored in that database.

Keys are created only together with the schema. A database whose keys are missing or different is not used. The queries
`key_fingerprints` and `record_key_fingerprint` are in the package that has the schema.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import asyncpg

from fundledger.security.keys import FileKeys, KeyFault, make_keys, read_keys
from fundledger.security.mac import MacKey

Evidence = Mapping[int, Sequence[tuple[bytes, bytes]]]
"""`(message, MAC)` of some rows by key version. If the sequence is empty, rows use the key, but none was read."""
UNCHANGED: Final = "nothing was changed"
_DOMAIN: Final = b"finger_1"


def fingerprint(key: MacKey) -> str:
    """Return 16 hexadecimal digits that identify a key without revealing the key: a truncated HMAC of a constant."""
    return key.tag(_DOMAIN)[:8].hex()


class KeyRecord(NamedTuple):
    """The keys of one database. `what` names the database in messages, for example "ledger"."""

    what: str
    folder: Path
    statements: Mapping[str, str]

    async def recorded(self, connection: "asyncpg.Connection[asyncpg.Record]") -> dict[int, str]:
        """Return the fingerprints by key version. The result is empty if the schema is older than fingerprints.

        Call this method outside of a transaction, or when the schema is up to date.
        """
        try:
            rows = await connection.fetch(self.statements["key_fingerprints"])
        except asyncpg.UndefinedTableError:
            return {}
        return {row["version"]: row["fingerprint"] for row in rows}

    def check(self, recorded: Mapping[int, str], evidence: Evidence) -> None:
        """Compare the keys in the folder with the database. Writes nothing.

        Raises KeyFault if a recorded or used key is missing or different. A key without a fingerprint is accepted if at
        least one of its rows verifies. Single rows that were tampered with are found by `fundledger verify` instead.
        """
        found = read_keys(self.folder)
        for version, mark in sorted(recorded.items()):
            self._ask_for(found, version, f" (fingerprint {mark})")
            other = fingerprint(found[version])
            if other != mark:
                raise KeyFault(
                    f"the {self.what} was written with key {version} (fingerprint {mark}), but {self._path(version)} "
                    f"is a different key (fingerprint {other}): restore the original key; {UNCHANGED}"
                )
        for version, rows in sorted(evidence.items()):
            if version in recorded:
                continue
            self._ask_for(found, version, "")
            if rows and not any(found[version].tag(message) == mac for message, mac in rows):
                raise KeyFault(
                    f"the {self.what} was written with a different key than {self._path(version)}: none of its first "
                    f"{len(rows)} rows verifies; restore the original key; {UNCHANGED}"
                )

    async def settle(
        self, connection: "asyncpg.Connection[asyncpg.Record]", recorded: Mapping[int, str], evidence: Evidence
    ) -> FileKeys:
        """Check the keys, record new keys, and create the first key if the database was never written with a key.

        Call this method in the transaction that brings the schema up to date. Raises KeyFault.
        """
        self.check(recorded, evidence)
        keys = make_keys(self.folder) if not (recorded or evidence) else FileKeys(self.folder)
        for version, key in sorted(read_keys(self.folder).items()):
            if version not in recorded:
                await connection.execute(self.statements["record_key_fingerprint"], version, fingerprint(key))
        return keys

    def _ask_for(self, found: Mapping[int, MacKey], version: int, mark: str) -> None:
        if version not in found:
            raise KeyFault(
                f"the {self.what} was written with key {version}{mark}, but {self.folder} does not contain it: restore "
                f"mac-{version}.key; {UNCHANGED}"
            )

    def _path(self, version: int) -> Path:
        return self.folder / f"mac-{version}.key"
