"""HTTP handler of the account service for its accounting calendar. `routes/calendar.py` declares its route."""

from fundledger.app.account.answers import structs as answers
from fundledger.app.account.service import Service
from fundledger.app.http.routing import Call
from fundledger.app.http.wire.reply import Reply, encode


async def get_calendar(service: Service, call: Call) -> Reply:
    """Handle `GET /v1/calendar`: the time zone and the cut that determine accounting dates."""
    del call
    settings = service.settings
    return Reply(200, encode(answers.Calendar(settings.accounting_timezone, f"{settings.accounting_cut:%H:%M}")))
