"""What the desk answers an order with: the order as it stands, a refusal, or that it could not be taken."""

from collections.abc import Callable

import msgspec

from fundledger.fund.order import Order
from fundledger.fund.refusal import Refusal


class Taken(msgspec.Struct):
    """There is an order. `replay`: it was there before. What became of it is its state; `posting` is not known yet."""

    order: Order
    replay: bool = False


class Away(msgspec.Struct, frozen=True):
    """A fault. `undone`: nothing was kept; else it may have been. Either way the same request may be sent again.
    `tampered`: a row that the answer depends on does not match its MAC, and a repetition does not help.
    """

    detail: str
    undone: bool = True
    tampered: bool = False


Answer = Taken | Refusal | Away
Answering = Callable[[Answer], None]
