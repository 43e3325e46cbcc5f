"""HTTP handlers of the fund service for merchants. `routes/merchants.py` declares the routes that call them."""

from typing import Final

from fundledger.app.fund.answers import render
from fundledger.app.fund.answers import structs as answers
from fundledger.app.fund.answers.problems import gone, refused, unverified_items
from fundledger.app.fund.handlers.orders import SEQ_MAX
from fundledger.app.fund.requests.charged_account import ChargedAccount, charged_account
from fundledger.app.fund.requests.lookup import merchant_id
from fundledger.app.fund.service import FundService
from fundledger.app.http.bodies.decoding import decoder, known_currency
from fundledger.app.http.problems import BadRequest, not_found, unverified
from fundledger.app.http.query import number
from fundledger.app.http.routing import Call
from fundledger.app.http.wire.reply import Reply, encode
from fundledger.faults import Unavailable
from fundledger.fund.account_gateway import GatewayFault, Unverified
from fundledger.fund.model import accounts
from fundledger.fund.model.answer import OrderFault
from fundledger.fund.model.merchant import Merchant
from fundledger.fund.model.refusal import Refusal
from fundledger.fund.model.requests import MerchantRequest

_decode_merchant = decoder(MerchantRequest)
LIMIT_DEFAULT: Final = 20
LIMIT_MAX: Final = 100


def named(service: FundService, parameters: dict[str, str]) -> ChargedAccount | None:
    """Return the account to charge for the merchant in a path, or None if the merchant is not cached."""
    merchant = service.merchants.remembered(parameters["id"])
    return None if merchant is None else charged_account(merchant.id)


async def create_merchant(service: FundService, call: Call) -> Reply:
    """Handle `POST /v1/merchants`: 201 if created, 200 if an equal merchant exists, 409 if a different one exists."""
    request = _decode_merchant(call.body)
    known_currency(request.currency)
    answer = await service.reading(lambda: service.merchants.create(request, call.module))
    if isinstance(answer, OrderFault):
        return gone(answer)
    if isinstance(answer, Refusal):
        return refused(answer)
    merchant, created = answer
    return await shown(service, merchant, 201 if created else 200)


async def get_merchant(service: FundService, call: Call) -> Reply:
    """Handle `GET /v1/merchants/{id}`: one merchant with the balances of its accounts."""
    return await shown(service, await found(service, call), 200)


async def list_merchants(service: FundService, call: Call) -> Reply:
    """Handle `GET /v1/merchants`: a page of merchants, oldest first, without balances."""
    limit = number(call.query, "limit", LIMIT_DEFAULT, 1, LIMIT_MAX)
    after = number(call.query, "cursor", 0, 0, SEQ_MAX)
    ids = await service.reading(lambda: service.merchants.list_ids(after, limit + 1))
    merchants, bad = [], []
    for _, id_ in ids[:limit]:
        try:
            merchant = await service.reading(lambda id_=id_: service.merchants.read(id_))  # type: ignore[misc]
        except BadRequest:
            bad.append(id_)
        else:
            assert merchant is not None
            merchants.append(merchant)
    following = str(ids[limit - 1][0]) if len(ids) > limit else None
    left_out = unverified_items("merchant", bad)
    return Reply(200, encode(answers.Merchants([render.merchant(each) for each in merchants], following, left_out)))


async def found(service: FundService, call: Call) -> Merchant:
    """Read the merchant in the path. Raises BadRequest (400, 404), Unavailable."""
    id_ = merchant_id(call.parameters["id"], "id")
    # The cache is not used here, because the cache would hide a later change of the row.
    merchant = await service.reading(lambda: service.merchants.read(id_))
    if merchant is None:
        raise not_found(f"merchant {id_}")
    return merchant


async def shown(service: FundService, merchant: Merchant, status: int) -> Reply:
    """Return the reply with a merchant and its balances. Raises Unavailable."""
    # The last two accounts exist only if an order needed them.
    further = accounts.reserve(merchant.id), accounts.disputed(merchant.id)
    try:
        balances = await service.gateway.balances([*(name.id for name in accounts.of_merchant(merchant.id)), *further])
    except Unverified as tampered:
        return unverified(str(tampered))
    except GatewayFault as fault:
        raise Unavailable(f"the account service does not answer: {fault}") from None
    return Reply(status, encode(render.merchant(merchant, balances)))
