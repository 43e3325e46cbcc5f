"""MACs: the fast implementation equals the standard library, and no two contents have the same encoding."""

import hmac
import itertools
import struct
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fundledger.ledger.model import clock
from fundledger.security import canonical
from fundledger.security.mac import MacKey

MESSAGES = st.binary(max_size=300)
INT64 = st.integers(-(2**63), 2**63 - 1)
INT32 = st.integers(-(2**31), 2**31 - 1)
UINT8 = st.integers(0, 255)
UINT16 = st.integers(0, 2**16 - 1)
MAC = st.binary(min_size=32, max_size=32)
UUID = st.binary(min_size=16, max_size=16)
TEXT = st.text(max_size=12)
SOME_TEXT = st.one_of(st.none(), st.text(min_size=1, max_size=12))


@given(secret=st.binary(min_size=32, max_size=200), message=MESSAGES)
def test_a_tag_equals_that_of_the_standard_library(secret: bytes, message: bytes) -> None:
    assert MacKey(1, secret).tag(message) == hmac.digest(secret, message, "sha256")


@pytest.mark.parametrize("length", [32, 63, 64, 65, 128])
def test_a_secret_of_a_block_is_padded_and_a_longer_one_hashed(length: int) -> None:
    secret = bytes(range(length))
    assert MacKey(1, secret).tag(b"x") == hmac.digest(secret, b"x", "sha256")


@given(first=MESSAGES, second=MESSAGES)
def test_a_key_is_the_same_after_it_was_used(first: bytes, second: bytes) -> None:
    key = MacKey(1, bytes(32))
    key.tag(first)
    assert key.tag(second) == MacKey(1, bytes(32)).tag(second)


@pytest.mark.parametrize("length", [0, 1, 31])
def test_a_short_key_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        MacKey(1, bytes(length))


def test_a_key_does_not_show_its_secret() -> None:
    secret = bytes(range(100, 132))
    key = MacKey(3, secret)
    assert repr(key) == "MacKey(version=3)"
    for shown in (repr(key), str(key), f"{key}", repr([key]), repr({"key": key})):
        assert secret.hex() not in shown
        assert repr(secret)[2:-1] not in shown
    assert not hasattr(key, "__dict__")


FIELDS: dict[str, tuple[Callable[..., bytes], tuple[st.SearchStrategy, ...]]] = {
    "sub_account": (
        canonical.sub_account,
        (INT64, INT32, st.binary(min_size=3, max_size=3), INT64, INT64, INT64, UINT8, INT64, INT64, MAC, UINT16),
    ),
    "entry": (canonical.entry, (INT64, INT32, INT64, UUID, INT64, INT64, INT32, INT64, MAC, UINT16)),
    "voucher": (
        canonical.voucher,
        (
            UUID,
            MAC,
            INT32,
            INT64,
            INT64,
            st.lists(st.tuples(INT64, INT64), max_size=4).map(lambda lines: [n for line in lines for n in line]),
            SOME_TEXT,
            UINT16,
        ),
    ),
    "account": (canonical.account, (INT64, TEXT, TEXT, TEXT, TEXT, INT64, SOME_TEXT, UINT16)),
    "hold": (canonical.hold, (TEXT, INT64, INT32, INT64, INT64, UINT8, INT64, INT64, INT64, SOME_TEXT, UINT16)),
}


@pytest.mark.parametrize("kind", FIELDS)
@given(data=st.data())
def test_two_contents_of_a_kind_never_have_one_encoding(kind: str, data: st.DataObject) -> None:
    """The pairs include contents in which a part of one field is moved to the next field."""
    encode, fields = FIELDS[kind]
    first = list(data.draw(st.tuples(*fields)))
    second = list(first)
    for i in data.draw(st.sets(st.integers(0, len(fields) - 1), min_size=1, max_size=2)):
        second[i] = data.draw(fields[i])
    assert (encode(*first) == encode(*second)) == (first == second)


@given(left=TEXT, right=TEXT, cut=st.integers(0, 24))
def test_text_cannot_move_from_one_field_to_its_neighbour(left: str, right: str, cut: int) -> None:
    both = left + right
    other = both[:cut], both[cut:]
    same = other == (left, right)
    assert (account(id_=left, owner=right) == account(id_=other[0], owner=other[1])) == same
    assert (account(owner=left, type_=right) == account(owner=other[0], type_=other[1])) == same


def account(**more: object) -> bytes:
    fields = {
        "number": 1,
        "id_": "a",
        "owner": "b",
        "type_": "c",
        "currency": "CNY",
        "created_at_us": 1,
        "metadata": None,
    }
    return canonical.account(**{**fields, **more}, key_version=1)  # type: ignore[arg-type]


@given(st.data())
def test_one_kind_is_never_read_as_another(data: st.DataObject) -> None:
    encoded = {kind: encode(*data.draw(st.tuples(*fields))) for kind, (encode, fields) in FIELDS.items()}
    tags = {kind: message[:8] for kind, message in encoded.items()}
    assert len(set(tags.values())) == len(FIELDS)
    assert len(set(encoded.values())) == len(FIELDS)


@given(st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30)))
def test_times_survive_as_microseconds(moment: datetime) -> None:
    moment = moment.replace(tzinfo=UTC)
    assert clock.moment(clock.us(moment)) == moment


FIRST_OF = [
    # slots, buffered, appended bytes
    (1, False, b""),
    (2, False, b"\x02\0\0\0"),
    (256, False, b"\0\x01\0\0"),
    (1, True, b"\x01\0\x01\0"),
    (4, True, b"\x04\0\x01\0"),
]


@pytest.mark.parametrize(("slots", "buffered", "more"), FIRST_OF)
def test_a_first_slot_has_the_differences_of_its_account_from_a_new_one(
    slots: int, buffered: bool, more: bytes
) -> None:
    assert canonical.first_of(slots, buffered, b"message") == b"message" + more


def test_a_chain_begins_with_32_zero_bytes() -> None:
    assert canonical.GENESIS == b"\0" * 32


def test_new_rows_are_written_with_the_layout_that_covers_the_module() -> None:
    assert canonical.LAYOUT == 2


def with_length(text: str | None) -> bytes:
    return b"\xff" * 4 if text is None else struct.pack("<I", len(text.encode())) + text.encode()


@pytest.mark.parametrize("lines", [(), (1, -5), (1, -5, 2, 5), (1, -5, 2, 3, 3, 2)])
@pytest.mark.parametrize("present", list(itertools.product((False, True), repeat=5)), ids=str)
def test_a_voucher_has_each_field_at_its_place_whichever_others_it_has(
    present: tuple[bool, ...], lines: tuple[int, ...]
) -> None:
    values = ("a reference", "{}", "h-1", b"r" * 16, "{refused}")
    reference, metadata, hold, reverses, refusal = (
        value if there else None for value, there in zip(values, present, strict=True)
    )
    fixed = struct.pack("<8s16siqqBHI", b"voucher2", b"v" * 16, 700_000, 12, 7, 1, 3, len(lines))
    expected = fixed + b"".join(struct.pack("<q", number) for number in lines)
    expected += with_length("dev") + with_length("pay") + struct.pack("<I", 32) + b"d" * 32
    expected += with_length(reference) + with_length(metadata) + with_length(hold)
    expected += (b"\0" if reverses is None else b"\x01" + reverses) + with_length(refusal)
    fields = (b"v" * 16, "dev", "pay", b"d" * 32, 700_000, 12, 7, lines)
    assert canonical.voucher_2(*fields, reference, metadata, hold, reverses, refusal, True, 3) == expected


@pytest.mark.parametrize("count", [1, 2, 15, 16, 300])
def test_a_summary_says_how_many_vouchers_it_has(count: int) -> None:
    """Without the number, the module after the ids could be read as another id."""
    ids = bytes(range(16)) * count
    fields = (1, 0, 7, ids, 500, 900, 700_000, 12, canonical.GENESIS, 1)
    fixed = struct.pack("<qiqqqiq32sHI", 1, 0, 7, 500, 900, 700_000, 12, bytes(32), 1, count)
    assert canonical.summary(*fields) == b"summary1" + fixed + ids
    assert canonical.summary_2("dev", *fields) == b"summary2" + fixed + ids + with_length("dev")
