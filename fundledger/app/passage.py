"""One request on its way through the gate: its caller, its class, what it was charged."""

from collections.abc import Sequence
from typing import Final, Protocol

from fundledger.ratelimit.bucket import Bucket
from fundledger.ratelimit.chain import Chain, Told
from fundledger.ratelimit.classes import ApiClass

REFUSED_UNSEEN: Final = frozenset({400, 404, 405, 413, 415, 417})
"""Statuses of requests that may end before they are charged."""
Charges = Sequence[tuple[Bucket, int]]
UNLIMITED: Final = Chain([], ApiClass.PAYMENT, {})
"""Of a request that no policy was looked up for yet."""
TRUSTED: Final = Chain([], ApiClass.CONFIRM, {})
"""Of the module that limits its own callers: it meets no policies here."""


class Owned(Protocol):
    """An account that a request is about, and its owner."""

    @property
    def id(self) -> str: ...

    @property
    def owner(self) -> str: ...


class Passage:
    """One request on its way in. `started`: when all of it was read (monotonic s); `budget_s`: how long from then its
    sender waits, None if it does not tell.

    `merchant`: the owner of the account that it moves most from, None where that is not known. `charged` tokens of each
    bucket of its `chain`, and the `charges` of a batch, of several accounts or before a look-up, are what a refund
    returns; `due`: what `ask` has still to charge instead of the chain. `inside`: it is in flight. `shed`: it was
    refused because of capacity. `seen`: its caller is counted among the hot keys.
    """

    __slots__ = (
        "api_class",
        "budget_s",
        "chain",
        "charged",
        "charges",
        "due",
        "inside",
        "merchant",
        "module",
        "refused",
        "seen",
        "shed",
        "started",
    )

    def __init__(self, module: str, started: float, budget_s: float | None, api_class: ApiClass) -> None:
        self.module = module
        self.started = started
        self.budget_s = budget_s
        self.api_class = api_class
        self.merchant: str | None = None
        self.chain = UNLIMITED
        self.charged = 0
        self.charges: Charges = ()
        self.due: Charges | None = None
        self.inside = False
        self.seen = False
        self.shed = False
        self.refused: Told | None = None
