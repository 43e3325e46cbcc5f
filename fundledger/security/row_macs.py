"""MACs of database rows: one message layout for all kinds of rows, distinguished by a tag with a layout version.

The message is a MessagePack array of the tag, the key version, and the fields in a fixed order. The encoding of each
element contains its type and length. The MAC key is derived from a key of the installation, for one purpose.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from fundledger.security.keys import KeyFault, Keys
from fundledger.security.mac import MacKey

NO_KEY: Final = 0
"""Key version of a row without a MAC."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_US: Final = timedelta(microseconds=1)
_UNREADABLE: Final = (KeyFault, OverflowError, TypeError, ValueError)
"""Errors for a row that cannot have been written by this code: an unknown key, a value that cannot be encoded."""
_encode = msgspec.msgpack.Encoder().encode


def microseconds(moment: datetime | None) -> int | None:
    """Return the microseconds from 1970 (UTC) to a moment, or None if the moment is None."""
    return None if moment is None else (moment - _EPOCH) // _US


class RowMacs:
    """MACs of rows under derived keys. Safe for concurrent use.

    Keys with different `purpose` are independent, although they are derived from the same key.
    """

    def __init__(self, keys: Keys, purpose: bytes) -> None:
        self._keys = keys
        self._purpose = purpose
        self._derived: dict[int, MacKey] = {}

    @property
    def version(self) -> int:
        """Return the key version of new MACs."""
        return self._keys.current.version

    def key(self, version: int) -> MacKey:
        """Return the derived key of a version. Raises KeyFault for a version that this installation does not have."""
        key = self._derived.get(version)
        if key is None:
            key = self._derived[version] = MacKey(version, self._keys.by_version(version).tag(self._purpose))
        return key

    def tag(self, kind: bytes, fields: tuple[object, ...]) -> tuple[int, bytes]:
        """Return the key version and the MAC of a row that is written now."""
        version = self._keys.current.version
        return version, self.key(version).tag(_encode((kind, version, *fields)))

    def matches(self, kind: bytes, fields: tuple[object, ...], version: int | None, mac: bytes | None) -> bool:
        """Return whether a row matches its MAC. The result is False for a row without a MAC, and for an unknown key."""
        if not version or not mac:
            return False
        try:
            return self.key(version).matches(_encode((kind, version, *fields)), mac)
        except _UNREADABLE:
            return False

    def agree(self, kind: bytes, fields_of: Callable[[Any], tuple[object, ...]], row: Any) -> bool:
        """Return whether the fields `fields_of(row)` match the MAC in the columns `mac_key` and `mac` of the row.

        The result is False if `fields_of` raises an exception, except for a missing column, which is a defect of the
        statement that read the row. Raises KeyError.
        """
        try:
            fields = fields_of(row)
        except KeyError:
            raise
        except Exception:
            return False
        return self.matches(kind, fields, row["mac_key"], row["mac"])
