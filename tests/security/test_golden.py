"""Pinned MACs and digests: rows of an earlier release verify with this one.

If a MAC differs from the pinned one, no existing row of this kind verifies any more. A pinned MAC is therefore never
renewed. If the fields under a MAC change, that is a new layout, with a new pinned MAC beside the old one.
"""

import uuid
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from asyncpg.pgproto.pgproto import UUID

from fundledger.fund.store import mac_layouts as rows
from fundledger.ledger.model.hold import hold_digest
from fundledger.ledger.model.voucher import digest_of
from fundledger.outbox.webhooks import WEBHOOK, webhook_fields
from fundledger.security import canonical
from fundledger.security.mac import MacKey
from fundledger.security.row_macs import RowMacs

KEY = MacKey(1, bytes(range(32)))
ID = uuid.UUID("00112233-4455-6677-8899-aabbccddeeff").bytes
OTHER = uuid.UUID("ffeeddcc-bbaa-9988-7766-554433221100").bytes
MAC, DIGEST = bytes(range(100, 132)), bytes(range(200, 232))
AT, DAY = 1_767_225_600_000_001, 739_617
MOMENT = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=AT)
ENTRY = (7, 3, 5, ID, -250, 9750, DAY, AT, MAC, 1)
SUMMARY = (7, 3, 5, ID + OTHER, -250, 9750, DAY, AT, MAC, 1)
BUFFERED = (7, 11, 2, 3, ID, 250, DAY, AT, 1)
LINES = [7, -250, 8, 250]


def first_of(slots: int, buffered: bool) -> bytes:
    return canonical.first_of(slots, buffered, canonical.sub_account(*KINDS["sub_account"][1]))


KINDS: dict[str, tuple[Callable[..., bytes], tuple[Any, ...], str]] = {
    "sub_account": (
        canonical.sub_account,
        (7, 3, b"CNY", 9750, 100, 6, 1, 5, AT, MAC, 1),
        "edb21bc3cf48834b0230b7b4ce9bfef1dd0baa82f8c71e9f914f8c9e3e5f579c",
    ),
    "first_of": (first_of, (4, True), "4b6b35209c14e4363103483707e9995276a09f9d58c34ce14ba36029684b757c"),
    "entry 1": (canonical.entry, ENTRY, "d6ae42b51a2b5f9c4e611c9d2ff381c25f319b29f71d3eeccbb3c2e5b7679a00"),
    "entry 2": (canonical.entry_2, ("dev", *ENTRY), "449971f73dee3cfc3aa59154fe8f079b7af4ca98d46906a871267b968fccaa9b"),
    "summary 1": (canonical.summary, SUMMARY, "0c18653b093d0121335da2d6e15b7e2107f81b3773dea30592237256ddf03379"),
    "summary 2": (
        canonical.summary_2,
        ("dev", *SUMMARY),
        "a4afea99ad0a6ee8381e207fadcb5ff1fc4e51b19c1f11bad5ca24190a1c3632",
    ),
    "buffered 1": (canonical.buffered, BUFFERED, "4021cd4fd7a8540cdf5a5e974f48c4744346503e5c7ad8a29dda1678270e19c0"),
    "buffered 2": (
        canonical.buffered_2,
        ("dev", *BUFFERED),
        "54d8439814cc99a8a0043396c8044b480ccc91f986d1f9a452e37a1033a286c1",
    ),
    "voucher 1": (
        canonical.voucher,
        (ID, DIGEST, DAY, AT, 11, LINES, '{"code":"x"}', 1),
        "39f835941122ab1aa8ac275d483ac40e5b1dbe9e591ca4be734d9f5b72cd46d4",
    ),
    "voucher 2": (
        canonical.voucher_2,
        (ID, "dev", "pay", DIGEST, DAY, AT, 11, LINES, "r", '{"k":1}', "h", OTHER, '{"code":"x"}', False, 1),
        "69b01403730931599ec872de97540cef1eb694b1f5086d25b5d24602da3351ac",
    ),
    "account 1": (
        canonical.account,
        (7, "m:1", "o:1", "merchant_available", "CNY", AT, '{"k":1}', 1),
        "2d1e07116ccf6a47123f13718788c6f4d36e6a1165b637c7e9c861411fef10b3",
    ),
    "account 2": (
        canonical.account_2,
        (7, "m:1", "dev", "o:1", "merchant_available", "CNY", 2, 4, True, AT, '{"k":1}', 1),
        "c2b633afcb559a0aa7d3baec45c33414e3b250801a23fb43933d1c58e566a4df",
    ),
    "hold 1": (
        canonical.hold,
        ("h", 7, 3, 50, 20, 1, AT, AT + 9, AT + 5, '{"code":"x"}', 1),
        "118348c406298fb69e427b9f39490f855114bacb306cb555e7ebddba2d3a691d",
    ),
    "hold 2": (
        canonical.hold_2,
        ("h", "dev", 2, 7, 3, 50, 20, 1, DIGEST, ID, AT, AT + 9, AT + 5, '{"code":"x"}', 1),
        "4ebafe3a10ae0599248fa44b21df5f4f2f14928f0f15fba054e5d7216c9b2a4c",
    ),
    "event": (
        canonical.event,
        (3, 7, 2, "why", "dev", AT, MAC, 1),
        "ed9aeecfd323fff672e4aac409cee6f39452487a986a1709f2e84dceeb8476eb",
    ),
    "finding": (
        canonical.finding,
        (3, "voucher", "dev 1", 2, 7, 3, "{}", AT, MAC, 1),
        "e770e00ba3173004d725a09002fa949d6c9967bcf970cc36e95f0e756f82e6c7",
    ),
    "chain_head": (
        canonical.chain_head,
        ("account_events", 3, MAC, 1),
        "043539f5e5bb928565b526a2856c2ffa7f00b2a0924a03d412f1ebbd74a2b926",
    ),
}


NOT_FILED = dict.fromkeys(("file_no", "line_no", "reported", "reported_reason"))
NO_TAX = {"tax": 0, "tax_settled": 0, "tax_returned": 0}
NO_TERMS = {"currency": None, "tax_basis_points": 0, "tax_mode": "included", "fee_return": "proportional"}
"""Columns that were added after the golden values of their rows, with their defaults."""
FUND_ROWS: dict[str, tuple[bytes, Callable[[Any], tuple[Any, ...]], dict[str, Any], str]] = {
    "payment": (
        rows.PAYMENT,
        rows.payment_fields,
        {
            "order_id": uuid.UUID(bytes=ID),
            "merchant": "m",
            "seq": 7,
            "amount": 100,
            "fee": 2,
            "settled": 90,
            "fee_settled": 1,
            "refunded": 30,
            "refunded_unsettled": 5,
            "fee_waived": 1,
            "fee_returned": 1,
            "charged_back": 3,
            "charged_back_unsettled": 0,
            "reversed": False,
            **NO_TAX,
            "settle_on": None,
        },
        "c11b0d4caa9a146e5e290d4a6143be7a354df169fb52057dc12222456e090242",
    ),
    "payment with tax": (
        rows.PAYMENT,
        rows.payment_fields,
        {
            "order_id": uuid.UUID(bytes=ID),
            "merchant": "m",
            "seq": 7,
            "amount": 100,
            "fee": 9,
            "settled": 90,
            "fee_settled": 8,
            "refunded": 30,
            "refunded_unsettled": 5,
            "fee_waived": 1,
            "settle_on": None,
            "fee_returned": 3,
            "charged_back": 3,
            "charged_back_unsettled": 1,
            "reversed": False,
            "tax": 4,
            "tax_settled": 3,
            "tax_returned": 2,
        },
        "095762e4f269410316f3c8962d8c0b66f7051a3c519d4456a3eb5f66ed77239c",
    ),
    "split part": (
        rows.PART,
        rows.part_fields,
        {
            "order_id": uuid.UUID(bytes=ID),
            "merchant": "m",
            "kind": "split_payment",
            "seq": 7,
            "amount": 100,
            "fee": 9,
            "tax": 4,
            "set_off": 8,
            "to_receivable": 1,
            "end_set_off": 6,
            "refunded": 30,
            "fee_returned": 3,
            "tax_returned": 2,
            "charged_back": 5,
            "reversed": False,
        },
        "eabce558608ce912c325cfd99d5519f519f813d757330ad0e8c08fdfe7fe2064",
    ),
    "debt": (
        rows.DEBT,
        rows.debt_fields,
        {"merchant": "m", "owed": 7},
        "e18f75075a3fafa0441c590194d4871683a4c68ec6dc55333c0cce71c8b351ed",
    ),
    "withdrawal day": (
        rows.DAY,
        rows.day_fields,
        {"merchant": "m", "day": date(2026, 3, 1), "amount": 7},
        "3cae76836dc0aa9faba3bb46530b3c06e58aea889e22cb3c14f21bb71fc1b4cf",
    ),
    "merchant": (
        rows.MERCHANT,
        rows.merchant_fields,
        {
            "id": "m",
            "name": "M",
            "currency": "CNY",
            "settlement": "daily",
            "withdrawal_limit": None,
            "digest": DIGEST,
            "created_at": MOMENT,
            **rows.MERCHANT_DEFAULTS,
        },
        "d54e1d98db1a7c21521cf1ea175ca6d3688d058986d1691229e339e80794dc01",
    ),
    "fee rule": (
        rows.FEE_RULE,
        rows.fee_rule_fields,
        {
            "version": 7,
            "merchant": None,
            "product": "payment",
            "channel": "c",
            "basis_points": 60,
            "fixed": 1,
            "minimum": 1,
            "maximum": 9,
            "tiers": '[{"from_amount": 5, "basis_points": 1, "fixed": 2}]',
            "effective_at": MOMENT,
            "module": "dev",
            "created_at": MOMENT,
            **NO_TERMS,
        },
        "1c388ac412aa5918bd64b97ded82e6a384abfcb58976dbe515b99b3c041ccf00",
    ),
    "fee rule with tax": (
        rows.FEE_RULE,
        rows.fee_rule_fields,
        {
            "version": 7,
            "merchant": "m",
            "product": "payment",
            "channel": "c",
            "basis_points": 60,
            "fixed": 1,
            "minimum": 1,
            "maximum": 9,
            "tiers": "[]",
            "effective_at": MOMENT,
            "module": "dev",
            "created_at": MOMENT,
            "currency": "CNY",
            "tax_basis_points": 600,
            "tax_mode": "added",
            "fee_return": "none",
        },
        "aff379fd80bbf1c515ba1cf511d2c691a295063b9f5f7d3042753f521ed084b1",
    ),
    "payout": (
        rows.PAYOUT,
        rows.payout_fields,
        {
            "order_id": uuid.UUID(bytes=ID),
            "channel": "c",
            "amount": 100,
            "currency": "CNY",
            "outcome": None,
            "channel_ref": "r",
            "kind": "withdrawal",
            **NOT_FILED,
        },
        "b687f6e71cb44dbe97a34dd70923ba97f380f914fc381d610310097bf64cf98d",
    ),
    "payout of a refund": (
        rows.PAYOUT,
        rows.payout_fields,
        {
            "order_id": uuid.UUID(bytes=ID),
            "channel": "c",
            "amount": 100,
            "currency": "CNY",
            "outcome": None,
            "channel_ref": "r",
            "kind": "refund",
            **NOT_FILED,
        },
        "f16e144eec8cc67fe5c2385f93f50809d01f7a1d8118fff92eb3543e24008543",
    ),
    "person": (
        rows.PERSON,
        rows.person_fields,
        {
            "name": "ann",
            "roles": ["checker", "maker"],
            "token_digest": DIGEST,
            "created_by": "root",
            "created_at": MOMENT,
            "rotated_at": MOMENT,
            "disabled_at": None,
        },
        "de972f64f79cc93bd55b08b20f349f38c51a71c0460683149fa1cc1ce8ffa73a",
    ),
    "channel": (
        rows.CHANNEL,
        rows.channel_fields,
        {
            "name": "c",
            "currency": "CNY",
            "bank_account": "bank:c",
            "payout": "http",
            "references_unique": True,
            "overdraft": None,
            "state": "open",
            "registered_by": "person:ann",
            "created_at": MOMENT,
            "refund": "manual",
        },
        "5206c7df462e79b3b972c93dc25f69ee4adcba18cf1af1c9b2852a20013763ff",
    ),
    "channel with its own method of refunds": (
        rows.CHANNEL,
        rows.channel_fields,
        {
            "name": "c",
            "currency": "CNY",
            "bank_account": "bank:c",
            "payout": "http",
            "references_unique": True,
            "overdraft": None,
            "state": "open",
            "registered_by": "person:ann",
            "created_at": MOMENT,
            "refund": "payout",
        },
        "94bad7c62f4d7cc800a692e8e95dfa9688cc0c08cf7dee03254c583700d27c52",
    ),
    "change": (
        rows.CHANGE,
        rows.change_fields,
        {
            "id": uuid.UUID(bytes=ID),
            "kind": "channel",
            "subject": "c CNY",
            "body": "{}",
            "state": "applied",
            "maker": "dev",
            "made_at": MOMENT,
            "checker": "person:ann",
            "decided_at": MOMENT,
            "reason": None,
        },
        "647072d3d3ff85b2ff2eb3c2a16fb7a108516a1f8bc82d81bd4ddb2308b88f8e",
    ),
    "calendar": (
        rows.CALENDAR,
        rows.calendar_fields,
        {"from_day": date(2026, 3, 1), "timezone": "Asia/Shanghai", "cut": "23:00", "recorded_at": MOMENT},
        "3a0303f374282a300d7c2914ae769e34eb01aa0660f0f7511027debdf3e128d9",
    ),
    "end": (
        rows.END,
        rows.end_fields,
        {"order_id": uuid.UUID(bytes=ID), "ending": "paid", "day": date(2026, 3, 1), "at": MOMENT},
        "1ddc9e8fcd8f1505d03151d095d67d1c0a70ebcccc030336f114e0efa926ef63",
    ),
    "holiday": (
        rows.HOLIDAY,
        rows.holiday_fields,
        {"region": "CNY", "day": date(2026, 3, 1), "working": True, "name": None, "change": uuid.UUID(bytes=ID)},
        "22aa1e5b6158d839cb215ab99aea58bc8cea4c71c5a4267755c008868fead095",
    ),
    "merchant event": (
        rows.MERCHANT_EVENT,
        rows.merchant_event_fields,
        {
            "merchant": "m",
            "version": 7,
            "what": "changed",
            "body": "{}",
            "by": "dev",
            "approved_by": "person:ann",
            "why": None,
            "change": uuid.UUID(bytes=ID),
            "at": MOMENT,
        },
        "ab380129f023abf6933ede25d043d4f954e06308076a8c280d089e1115586ad5",
    ),
    "webhook": (
        WEBHOOK,
        webhook_fields,
        {
            "id": uuid.UUID(bytes=ID),
            "merchant": "m",
            "url": "u",
            "events": ["payment.posted"],
            "secret": b"s",
            "module": "dev",
            "created_at": MOMENT,
            "disabled_at": None,
            "disabled_why": None,
        },
        "5047179abe286f6797536f974c026172e404854692e157944e59dac343ad39a7",
    ),
}


FUND_ROWS["payment that is settled later"] = (
    *FUND_ROWS["payment"][:2],
    {**FUND_ROWS["payment"][2], "settle_on": date(2026, 3, 4)},
    "3158d4f4b53a83c39856f4ca771faf64c5397e5d42530ca1c3fc40dc19bae67d",
)
FUND_ROWS["merchant that changed"] = (
    *FUND_ROWS["merchant"][:2],
    {
        **FUND_ROWS["merchant"][2],
        "state": "closing",
        "settlement_days": 0,
        "settlement_cut": "17:00",
        "settlement_region": "CN",
        "final_channel": "c",
        "version": 3,
    },
    "bb289100ddc20d0ae93ad4642371d89607ea9200757a00671125228e74fdce08",
)


class OneKey:
    current = KEY

    def by_version(self, version: int) -> MacKey:
        return KEY


@pytest.mark.parametrize("kind", FUND_ROWS)
def test_the_tag_of_a_row_of_the_fund_service_is_what_it_always_was(kind: str) -> None:
    tag, fields_of, row, golden = FUND_ROWS[kind]
    macs = RowMacs(OneKey(), b"fundledger fund rows 1")
    version, mac = macs.tag(tag, fields_of(row))
    assert (version, mac.hex()) == (1, golden)
    assert macs.agree(tag, fields_of, {**row, "mac_key": version, "mac": mac})
    for other, _, _, _ in FUND_ROWS.values():
        if other != tag:
            assert not macs.matches(other, fields_of(row), version, mac)
            assert len(other) == 8


def other_than(value: Any) -> list[Any]:
    """Return values with the smallest possible difference."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, value - 1]
    if isinstance(value, list):
        return [[*value[:-1], value[-1] + 1], value[2:], [*value, *value[:2]]]
    if isinstance(value, str):
        return [value + "x", value[1:], value.swapcase() if value.swapcase() != value else value + " "]
    assert isinstance(value, bytes)
    return [bytes([value[0] ^ 1, *value[1:]]), bytes([*value[:-1], value[-1] ^ 1])]


@pytest.mark.parametrize("kind", KINDS)
def test_the_tag_of_a_kind_is_what_it_always_was(kind: str) -> None:
    encode, fields, tag = KINDS[kind]
    assert KEY.tag(encode(*fields)).hex() == tag


FIELDS = [(kind, i) for kind, (_, fields, _) in KINDS.items() for i in range(len(fields))]


@pytest.mark.parametrize(("kind", "field"), FIELDS)
def test_each_field_is_under_the_mac(kind: str, field: int) -> None:
    encode, fields, _ = KINDS[kind]
    for other in other_than(fields[field]):
        assert encode(*fields[:field], other, *fields[field + 1 :]) != encode(*fields), (kind, field, other)


ABSENT = {"voucher 1": [6], "voucher 2": [8, 9, 10, 11, 12], "account 2": [2, 10], "hold 2": [9, 13], "finding": [2]}


@pytest.mark.parametrize(("kind", "field"), [(kind, i) for kind, those in ABSENT.items() for i in those])
def test_what_is_absent_has_a_message_of_its_own(kind: str, field: int) -> None:
    encode, fields, _ = KINDS[kind]
    absent = encode(*fields[:field], None, *fields[field + 1 :])
    assert absent != encode(*fields)
    if isinstance(fields[field], str) and kind != "voucher 1":
        assert absent != encode(*fields[:field], "", *fields[field + 1 :])


def test_no_kind_is_read_as_another() -> None:
    tags = {encode(*fields)[:8] for kind, (encode, fields, _) in KINDS.items() if kind != "first_of"}
    assert len(tags) == len(KINDS) - 1
    assert all(len(tag) == 8 and tag.isascii() for tag in tags)


def test_digests_are_what_they_always_were() -> None:
    entries = [("m:1", -250), ("bank", 250)]
    reverses = UUID(str(uuid.UUID(bytes=OTHER)))
    assert (
        digest_of("pay", entries, None, None, None, None).hex()
        == "0bc6b8eae160f6c91fdf19a65998bb384a589c15513ae046ac5ad22e36d2f972"
    )
    assert (
        digest_of("pay", entries, "r", '{"k":1}', "h", reverses).hex()
        == "ff6a56dfb3838fc0843557fd37dc2d243a4d8d74681c458140132545f6324797"
    )
    assert hold_digest("h", "m:1", 50, AT).hex() == "882ded570c0155c5e7c3a2c45a40f1f30de784c34e221e5297180e00cf08f39d"
