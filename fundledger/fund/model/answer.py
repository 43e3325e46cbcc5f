"""Answers of the fund's order batcher: the order, a refusal, or a fault."""

from collections.abc import Callable

import msgspec

from fundledger.fund.model.order import Order
from fundledger.fund.model.refusal import Refusal


class Taken(msgspec.Struct):
    """The order exists. `replay`: it existed before this request. Its outcome is its state; in `posting` the outcome is
    not known yet.
    """

    order: Order
    replay: bool = False


class OrderFault(msgspec.Struct, frozen=True):
    """A fault. If `undone`, nothing is stored; otherwise the outcome is unknown. In both cases a retry of the same
    request is safe. `tampered`: a row that the answer depends on does not match its MAC, so a retry cannot succeed.
    """

    detail: str
    undone: bool = True
    tampered: bool = False


Answer = Taken | Refusal | OrderFault
Answering = Callable[[Answer], None]
