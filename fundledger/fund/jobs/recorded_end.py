"""Background jobs of the fund service, part of the payout job and of imports: the recorded end of an order."""

from typing import Final

from fundledger.fund.model.answer import Answer, Taken
from fundledger.fund.model.refusal import Code, Refusal

ENDED_AS: Final = {
    **dict.fromkeys((Code.WITHDRAWAL_PAID, Code.REFUND_PAID), "paid"),
    **dict.fromkeys((Code.WITHDRAWAL_BOUNCED, Code.REFUND_BOUNCED), "bounced"),
}


def recorded_end(answer: Answer) -> str | None:
    """Return the recorded end of an order (`paid` or `bounced`), as an answer of the batcher reports it. Return None if
    the answer reports no end.
    """
    if isinstance(answer, Refusal):
        return ENDED_AS.get(answer.code)
    if isinstance(answer, Taken):
        end = answer.order.ending or answer.order.state.value
        return end if end in {"paid", "bounced"} else None
    return None
