"""Model of the fund service: answers of the order batcher. An answer is the order, a refusal, or a fault."""

from collections.abc import Callable

import msgspec

from fundledger.fund.model.order import Order
from fundledger.fund.model.refusal import Refusal


class Taken(msgspec.Struct):
    """The answer with an order that exists. `replay`: the order existed before the request. The state of the order is
    its outcome; in the state `posting` the outcome is not known yet.
    """

    order: Order
    replay: bool = False


class OrderFault(msgspec.Struct, frozen=True):
    """A fault. If `undone`, nothing is stored. Otherwise the outcome is unknown. In both cases a retry of the same
    request is safe. `tampered`: a row on which the answer depends does not match its MAC, so a retry cannot succeed.
    """

    detail: str
    undone: bool = True
    tampered: bool = False


Answer = Taken | Refusal | OrderFault
Answering = Callable[[Answer], None]
