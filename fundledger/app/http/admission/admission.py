"""Admission state of one HTTP request: its caller, its API class, its charges."""

from typing import Final, Protocol

from fundledger.ratelimit.classes import ApiClass
from fundledger.ratelimit.quota.bucket import Charges
from fundledger.ratelimit.quota.matched import MatchedPolicies, RateLimitHeaders

REFUSED_UNSEEN: Final = frozenset({400, 403, 404, 405, 413, 415, 417})
"""Statuses with which a request may be rejected before it is charged."""
UNLIMITED: Final = MatchedPolicies([], ApiClass.PAYMENT, {})
"""Value of `Admission.matched` before the policies of the request are looked up."""
TRUSTED: Final = MatchedPolicies([], ApiClass.CONFIRM, {})
"""Value of `Admission.matched` for the trusted module: no policies, because this module limits its own callers."""


class Owned(Protocol):
    """Id and owner of an account that a request concerns."""

    @property
    def id(self) -> str: ...

    @property
    def owner(self) -> str: ...


class Admission:
    """Admission state of one request.

    `started`: monotonic time (s) at which the whole request had been read. `budget_s`: how many seconds the
    caller waits after `started`, None if the caller did not state it. `request_id`: empty until the headers are read.

    `merchant`: owner of the first charged account, None if not known. `charged`: number of tokens that were charged to
    each bucket of `matched`. `charges`: further tokens that were charged, by bucket (for a batch, for several accounts,
    or before a look-up). `due`: if not None, the charges that `ask` has to make instead of charging `matched`.

    `inside`: the request is in flight. `shed`: the request was rejected because capacity is exhausted. `seen`: the
    caller has been counted among the hot keys. `refused`: the rate-limit headers of a rejected request.
    """

    __slots__ = (
        "api_class",
        "budget_s",
        "charged",
        "charges",
        "due",
        "inside",
        "matched",
        "merchant",
        "module",
        "refused",
        "request_id",
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
        self.matched = UNLIMITED
        self.charged = 0
        self.charges: Charges = ()
        self.due: Charges | None = None
        self.inside = False
        self.seen = False
        self.shed = False
        self.refused: RateLimitHeaders | None = None
        self.request_id = ""
