"""Digests of requests: they are stored with the orders, and decide whether a repeated request is the same one."""

import hashlib

import msgspec
import pytest

from fundledger.fund.model.order import Kind
from fundledger.fund.model.request_types import REQUESTS

SPLIT = b'"amount":2,"currency":"CNY","channel":"c","parts":[{"merchant":"a","amount":1},{"merchant":"b","amount":1}]'
OF_PLATFORM = {
    Kind.SPLIT_PAYMENT: SPLIT,
    Kind.SPLIT_REFUND: b'"of_order_no":"p","amount":1',
    Kind.SPLIT_CHARGEBACK: b'"of_order_no":"p","amount":1',
    Kind.SUSPENSE_CLEARING: b'"amount":1,"currency":"CNY","direction":"more","against":"income","reason":"r"',
    Kind.PARKED_CLEARING: b'"of_kind":"split_payment","of_order_no":"p","against":"income","reason":"r"',
}


def digest(kind: Kind, members: bytes) -> bytes:
    return msgspec.json.decode(b'{"order_no":"1",' + members + b"}", type=REQUESTS[kind]).digest()


@pytest.mark.parametrize("kind", OF_PLATFORM)
def test_the_platform_may_be_named_or_omitted(kind: Kind) -> None:
    named = b'"merchant":"platform",' + (b'"of_merchant":"platform",' if kind is Kind.PARKED_CLEARING else b"")
    assert digest(kind, named + OF_PLATFORM[kind]) == digest(kind, OF_PLATFORM[kind])


def test_a_reversal_keeps_the_digest_that_is_stored() -> None:
    members = b'"of_kind":"channel_cost","of_order_no":"c","reason":"r"'
    for named in (b'"merchant":"platform",', b""):
        stored = b'reversal|{"order_no":"1",' + named + members + b"}"
        assert digest(Kind.REVERSAL, named + members) == hashlib.sha256(stored).digest()
