"""MACs of database rows: one message layout for all kinds of rows, distinguished by a tag with a layout version.

The message is a MessagePack array: the tag, the key version, the fields in a fixed order. Each element encodes its type
and length. The key is derived for its purpose from a key of the installation.
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
    """Return microseconds since 1970 (UTC), None for None."""
    return None if moment is None else (moment - _EPOCH) // _US


class RowMacs:
    """MACs of rows under derived keys; `purpose` separates these keys from keys that are derived for other purposes.
    Safe for concurrent use.
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
        """Whether a row matches its MAC. False for a row without a MAC and for an unknown key."""
        if not version or not mac:
            return False
        try:
            return self.key(version).matches(_encode((kind, version, *fields)), mac)
        except _UNREADABLE:
            return False

    def agree(self, kind: bytes, fields_of: Callable[[Any], tuple[object, ...]], row: Any) -> bool:
        """Whether a row matches the MAC in its columns `mac_key` and `mac`, over `fields_of(row)`.

        False if `fields_of` raises.
        """
        try:
            fields = fields_of(row)
        except Exception:
            return False
        return self.matches(kind, fields, row["mac_key"], row["mac"])
