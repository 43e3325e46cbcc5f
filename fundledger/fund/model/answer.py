"""Answers of the fund's order batcher: the order, a refusal, or a fault."""

from collections.abc import Callable

import msgspec

from fundledger.fund.model.order import Order
from fundledger.fund.model.refusal import Refusal


class Taken(msgspec.Struct):
    """The order exists. `replay`: it existed before this request. Its outcome is its state; `posting` is not final."""

    order: Order
    replay: bool = False


class OrderFault(msgspec.Struct, frozen=True):
    """A fault. `undone`: nothing is stored; otherwise the outcome is unknown. Either way a retry of the same request is
    safe. `tampered`: a row that the answer depends on does not match its MAC, and a retry does not help.
    """

    detail: str
    undone: bool = True
    tampered: bool = False


Answer = Taken | Refusal | OrderFault
Answering = Callable[[Answer], None]
