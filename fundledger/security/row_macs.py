"""MACs of rows: one message layout for all kinds of rows, told apart by a tag that carries the version of its layout.

The message is MessagePack of an array: the tag, the version of the key, the fields in a fixed order. Each element says
its own type and length. The key is derived for this purpose from a key of the installation.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from fundledger.security.keys import KeyFault, Keys
from fundledger.security.mac import MacKey

NO_KEY: Final = 0
"""The key version of a row that has no MAC."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_US: Final = timedelta(microseconds=1)
_UNREADABLE: Final = (KeyFault, OverflowError, TypeError, ValueError)
"""What is raised for a row that was never written like this: an unknown key, a value that no message can carry."""
_encode = msgspec.msgpack.Encoder().encode


def microseconds(moment: datetime | None) -> int | None:
    """Microseconds since 1970 (UTC)."""
    return None if moment is None else (moment - _EPOCH) // _US


class RowMacs:
    """`purpose` tells the derived keys from others that are made of the same key. Safe for any number of tasks."""

    def __init__(self, keys: Keys, purpose: bytes) -> None:
        self._keys = keys
        self._purpose = purpose
        self._derived: dict[int, MacKey] = {}

    @property
    def version(self) -> int:
        """The key version of new MACs."""
        return self._keys.current.version

    def key(self, version: int) -> MacKey:
        """The derived key of a version. Raises KeyFault for one that this installation does not have."""
        key = self._derived.get(version)
        if key is None:
            key = self._derived[version] = MacKey(version, self._keys.by_version(version).tag(self._purpose))
        return key

    def tag(self, kind: bytes, fields: tuple[object, ...]) -> tuple[int, bytes]:
        """The key version and the MAC of a row as it is written now."""
        version = self._keys.current.version
        return version, self.key(version).tag(_encode((kind, version, *fields)))

    def matches(self, kind: bytes, fields: tuple[object, ...], version: int | None, mac: bytes | None) -> bool:
        """Whether a row that was read matches its MAC. A row without one does not; nor does one of an unknown key."""
        if not version or not mac:
            return False
        try:
            return self.key(version).matches(_encode((kind, version, *fields)), mac)
        except _UNREADABLE:
            return False

    def agree(self, kind: bytes, fields_of: Callable[[Any], tuple[object, ...]], row: Any) -> bool:
        """Whether a row that was read matches the MAC in its columns `mac_key` and `mac`, over `fields_of(row)`. A row
        whose fields cannot be told does not.
        """
        try:
            fields = fields_of(row)
        except Exception:
            return False
        return self.matches(kind, fields, row["mac_key"], row["mac"])
