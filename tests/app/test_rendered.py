"""Answers that are rendered by hand equal the encoded structs from which the OpenAPI document takes their schemas."""

from datetime import date
from uuid import UUID, uuid4

import msgspec
import pytest

from fundledger.app.account.answers import render
from fundledger.app.account.answers import structs as answers
from fundledger.ledger.model.account import Account
from fundledger.ledger.model.chart import CHART
from fundledger.ledger.model.refusal import Code, Refusal
from fundledger.ledger.model.voucher import Record

REFUSED = Refusal(Code.INSUFFICIENT_FUNDS, 'account "a" has not enough', account="a", field="entries[0]")


def record(
    lines: tuple[int, ...] = (-5, 5),
    reference: str | None = None,
    metadata: str | None = None,
    hold: str | None = None,
    reverses: UUID | None = None,
    posted_at_us: int = 1767323045678901,
    refusal: Refusal | None = None,
) -> Record:
    return Record(
        id=uuid4(),
        type="pay",
        digest=b"",
        lines=[
            (Account(i, f"merchant:{i}:available", 0, 1, "CNY", CHART["merchant_available"]), amount)
            for i, amount in enumerate(lines)
        ],
        reference=reference,
        metadata=metadata,
        hold=hold,
        reverses=reverses,
        refusal=refusal,
        posted_at_us=posted_at_us,
        accounting_date=date(2026, 1, 2),
        batch=1,
        module="gateway",
    )


RECORDS = {
    "plain": record(),
    "many lines": record(lines=(*range(1, 64), -(1 << 53) + 1)),
    "whole second": record(posted_at_us=1767323045000000),
    "text to escape": record(reference='"\\\n\x1f\x7f é \U0001f600 \u2028'),
    "metadata": record(metadata='{"":null,"a":[1.5e300,true,{"b":"\\u001f\\"é"}],"n":9007199254740991}'),
    "capture": record(hold="hold:1"),
    "reversal": record(reverses=uuid4()),
    "all": record(reference="r", metadata="{}", hold="h", reverses=uuid4()),
}


def is_encoding_of(rendered: bytes, type_: type[msgspec.Struct]) -> bool:
    return msgspec.json.encode(msgspec.json.decode(rendered, type=type_)) == rendered


@pytest.mark.parametrize("name", RECORDS)
def test_a_voucher_is_rendered_as_its_struct_is_encoded(name: str):
    assert is_encoding_of(render.voucher(RECORDS[name]), answers.Voucher)


@pytest.mark.parametrize("name", RECORDS)
def test_a_voucher_that_is_read_is_the_rendered_one_with_its_refusal_and_reversal(name: str):
    posted = RECORDS[name]
    assert msgspec.json.encode(render.voucher_members(posted, None)) == render.voucher(posted)
    refused = msgspec.structs.replace(posted, refusal=REFUSED)
    found = msgspec.json.decode(msgspec.json.encode(render.voucher_members(refused, uuid4())))
    assert found["status"] == "refused"
    assert found["problem"]["detail"] == REFUSED.detail
    assert list(found)[-2:] == ["problem", "reversed_by"]
