"""Queue of the order batcher: orders with the callers that wait for their answers, and answers to repeated requests."""

from fundledger.fund.model.answer import Answer, Answering, OrderFault, Taken
from fundledger.fund.model.drafts import Draft
from fundledger.fund.model.order import Order
from fundledger.fund.model.refusal import Code, Refusal

_OTHERS = OrderFault("a concurrent request with this order number and other content failed; send this request again")


class Waiting:
    """A queued order, its first caller, and later callers that sent the same order number."""

    __slots__ = ("answers", "draft")

    def __init__(self, draft: Draft, answer: Answering) -> None:
        self.draft = draft
        self.answers: list[tuple[bytes, Answering]] = [(draft.order.digest, answer)]

    def tell(self, answer: Answer) -> None:
        """Send the answer to the first caller. Send each later caller a replay, or a refusal if its request differs."""
        for i, (digest, tell) in enumerate(self.answers):
            own = answer
            if digest != self.draft.order.digest:
                own = reused(self.draft.order) if isinstance(answer, Taken) else _OTHERS
            elif i and isinstance(answer, Taken):
                own = Taken(answer.order, replay=True)
            tell(own)


def repeated(asked: Order, there: Order) -> Answer:
    """Return the answer to a request whose order number exists: a replay, or a refusal if the request differs."""
    return Taken(there, replay=True) if there.digest == asked.digest else reused(there)


def reused(there: Order) -> Refusal:
    detail = f"{there.kind} {there.order_no} of {there.merchant} exists with other content; use a new `order_no`"
    return Refusal(Code.ORDER_NO_REUSED, detail, "order_no")
