"""HTTP handlers of the fund service for payees. `routes/payees.py` declares the routes that call them."""

import re
from typing import Final
from uuid import UUID

from fundledger.app.fund.answers import payees as answers
from fundledger.app.fund.answers import registry
from fundledger.app.fund.answers.problems import refused, unverified_items
from fundledger.app.fund.handlers.orders import LIMIT_DEFAULT, LIMIT_MAX, SEQ_MAX
from fundledger.app.fund.requests.bodies import DisablePayeeBody
from fundledger.app.fund.requests.lookup import merchant_id
from fundledger.app.fund.service import FundService
from fundledger.app.http.bodies.decoding import decoder, known_currency, quotes_of_flat
from fundledger.app.http.problems import malformed, not_found
from fundledger.app.http.query import number
from fundledger.app.http.routing import Call
from fundledger.app.http.wire.reply import Reply, encode
from fundledger.fund.model.change import ChangeKind
from fundledger.fund.model.payee import Payee, PayeeRequest
from fundledger.fund.model.refusal import Code, Refusal

_is_uuid: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}").fullmatch
_decode_new = decoder(PayeeRequest)
_decode_disable = decoder(DisablePayeeBody, quotes_of_flat)


async def post_payee(service: FundService, call: Call) -> Reply:
    """Handle `POST /v1/merchants/{id}/payees`: 202 with a change that registers a payee after its approval."""
    request = _decode_new(call.body)
    known_currency(request.currency)
    id_ = await _merchant(service, call)
    merchant = await service.reading(lambda: service.merchants.get(id_))
    assert merchant is not None
    if request.currency != merchant.currency:
        detail = f"the currency of merchant {id_} is {merchant.currency}"
        return refused(Refusal(Code.CURRENCY_MISMATCH, detail, "currency"))
    no = await service.reading(lambda: service.payees.refusal_of(service.pool, id_, request))
    if no is not None:
        return refused(no)
    subject = service.payees.subject(id_, request)
    made = await service.reading(lambda: service.changes.request(ChangeKind.PAYEE, subject, request, call.module))
    return refused(made) if isinstance(made, Refusal) else Reply(202, encode(registry.change(made)))


async def list_payees(service: FundService, call: Call) -> Reply:
    """Handle `GET /v1/merchants/{id}/payees`: a page of payees with masked account numbers."""
    limit = number(call.query, "limit", LIMIT_DEFAULT, 1, LIMIT_MAX)
    after = number(call.query, "cursor", 0, 0, SEQ_MAX)
    id_ = await _merchant(service, call)
    found, bad, last = await service.reading(lambda: service.payees.page(id_, after, limit))
    following = str(last) if len(found) + len(bad) == limit else None
    shown = [answers.listed(payee) for payee in found]
    return Reply(200, encode(answers.Payees(shown, following, unverified_items("payee", bad))))


async def get_payee(service: FundService, call: Call) -> Reply:
    """Handle `GET /v1/merchants/{id}/payees/{payee}`: one payee with its whole account number."""
    merchant, id_ = merchant_id(call.parameters["id"], "id"), _payee(call)
    return _shown(await service.reading(lambda: service.payees.read(merchant, id_)), call)


async def disable_payee(service: FundService, call: Call) -> Reply:
    """Handle `POST /v1/merchants/{id}/payees/{payee}/disable`: disable a payee permanently. Idempotent."""
    merchant, id_ = merchant_id(call.parameters["id"], "id"), _payee(call)
    reason = _decode_disable(call.body).reason
    return _shown(await service.reading(lambda: service.payees.disable(merchant, id_, call.module, reason)), call)


async def _merchant(service: FundService, call: Call) -> str:
    """Return the id of the merchant in the path. Raises BadRequest (400, 404), Unavailable."""
    id_ = merchant_id(call.parameters["id"], "id")
    if await service.reading(lambda: service.merchants.get(id_)) is None:
        raise not_found(f"merchant {id_}")
    return id_


def _payee(call: Call) -> UUID:
    """Return the id of the payee in the path. Raises BadRequest (400)."""
    text = call.parameters["payee"]
    if not _is_uuid(text):
        raise malformed("payee must be a UUID of 36 characters", field="payee")
    return UUID(text)


def _shown(payee: Payee | None, call: Call) -> Reply:
    if payee is None:
        raise not_found(f"payee {call.parameters['payee']}")
    return Reply(200, encode(answers.full(payee)))
