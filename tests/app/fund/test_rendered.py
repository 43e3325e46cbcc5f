"""Answers that are rendered by hand are the encodings of the structs from which the document takes their schemas."""

from datetime import UTC, datetime
from unittest.mock import MagicMock
from uuid import UUID, uuid4

import msgspec
import pytest

from fundledger.app.fund import answers
from fundledger.app.fund.orders import _result
from fundledger.fund.model.answer import Answer, Away, Taken
from fundledger.fund.model.order import Kind, Order, State
from fundledger.fund.model.refusal import Code, Refusal
from fundledger.fund.model.requests import Payment

PAYMENT = Payment(merchant="m", order_no="1", amount=1, currency="CNY", channel="simulator")
PROBLEM = b'{"type":"urn:fundledger:problem:account-closed","title":"t","status":422,"detail":"d","account":"a"}'


def order(state: State, problem: bytes | None = None) -> Order:
    ids: list[UUID] = [uuid4(), uuid4()]
    at = datetime.now(UTC)
    return Order(ids[0], Kind.PAYMENT, "m", "1", state, 1, 0, "CNY", b"", ids[1], "dev", at, problem=problem)


@pytest.mark.parametrize(
    "answer",
    [
        Taken(order(State.POSTED)),
        Taken(order(State.POSTED), replay=True),
        Taken(order(State.REFUSED, PROBLEM)),
        Taken(order(State.REFUSED, PROBLEM), replay=True),
        Refusal(Code.ORDER_NO_REUSED, "used before", "order_no"),
        Refusal(Code.MERCHANT_NOT_FOUND, "no merchant"),
        Away("the merchant does not match its MAC", tampered=True),
    ],
)
def test_an_item_of_a_batch_is_rendered_as_its_struct_is_encoded(answer: Answer):
    rendered = msgspec.json.encode(_result(MagicMock(), PAYMENT, answer))
    decoded = msgspec.json.decode(rendered, type=answers.PaymentResult)
    assert msgspec.json.encode(decoded) == rendered
