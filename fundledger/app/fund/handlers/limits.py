"""HTTP handler of the fund service for `GET /debug/limits`. The merchant id may lack its prefix."""

import msgspec

from fundledger.app.fund.service import FundService
from fundledger.app.http.admission import debug_limits
from fundledger.app.http.routing import Call
from fundledger.app.http.wire.reply import Reply


async def get_limits(service: FundService, call: Call) -> Reply:
    """Return the policies that apply to the described request. `merchant` may omit its prefix `merchant:`.

    Raises BadRequest (400).
    """
    merchant = call.query.get("merchant")
    if merchant and ":" not in merchant:
        call = msgspec.structs.replace(call, query={**call.query, "merchant": f"merchant:{merchant}"})
    return await debug_limits.get_limits(service, call)
