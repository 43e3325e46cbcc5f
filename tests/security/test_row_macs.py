"""A row matches the MAC that it was written with, and no other row does."""

from datetime import UTC, datetime
from typing import Any

import pytest

from fundledger.security.row_macs import NO_KEY, RowMacs, microseconds
from tests.support.fund_ids import KEYS

MACS = RowMacs(KEYS, b"a purpose")
KIND, FIELDS = b"payment1", ("m", 5, None, True)
VERSION, MAC = MACS.tag(KIND, FIELDS)

ROWS: dict[str, tuple[bytes, tuple[object, ...], int | None, bytes | None, bool]] = {
    "as it was written": (KIND, FIELDS, VERSION, MAC, True),
    "another kind": (b"payment2", FIELDS, VERSION, MAC, False),
    "another field": (KIND, ("m", 6, None, True), VERSION, MAC, False),
    "a field that no message can carry": (KIND, (object(),), VERSION, MAC, False),
    "a number that no message can carry": (KIND, (1 << 70,), VERSION, MAC, False),
    "another MAC": (KIND, FIELDS, VERSION, bytes(32), False),
    "no MAC": (KIND, FIELDS, VERSION, None, False),
    "an empty MAC": (KIND, FIELDS, VERSION, b"", False),
    "no key": (KIND, FIELDS, None, MAC, False),
    "the key of rows without a MAC": (KIND, FIELDS, NO_KEY, MAC, False),
    "an unknown key": (KIND, FIELDS, 2, MAC, False),
}


@pytest.mark.parametrize("case", ROWS)
def test_a_row_matches_only_the_mac_that_it_was_written_with(case: str) -> None:
    kind, fields, version, mac, expected = ROWS[case]
    assert MACS.matches(kind, fields, version, mac) is expected
    assert MACS.agree(kind, lambda row: row["fields"], {"fields": fields, "mac_key": version, "mac": mac}) is expected


def test_a_row_whose_fields_cannot_be_encoded_does_not_match() -> None:
    def fields_of(row: Any) -> tuple[object, ...]:
        raise ValueError(row)

    assert MACS.agree(KIND, fields_of, {"mac_key": VERSION, "mac": MAC}) is False


def test_a_statement_that_omits_a_column_is_no_edited_row() -> None:
    with pytest.raises(KeyError):
        MACS.agree(KIND, lambda row: (row["missing"],), {"mac_key": VERSION, "mac": MAC})


def test_a_purpose_has_keys_of_its_own() -> None:
    assert NO_KEY == 0
    assert (MACS.version, VERSION) == (1, 1)
    assert not RowMacs(KEYS, b"another").matches(KIND, FIELDS, VERSION, MAC)


def test_a_moment_is_counted_in_microseconds() -> None:
    assert microseconds(None) is None
    assert microseconds(datetime(1970, 1, 1, 0, 0, 1, 5, tzinfo=UTC)) == 1_000_005
