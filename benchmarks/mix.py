"""Generator of mixed requests for a benchmark: requests of all classes, as concurrent front ends send them."""

import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, count
from typing import Final, NamedTuple

from benchmarks.traffic import PLATFORM_ACCOUNT, fresh_prefix, merchant

SHARES: Final = {"refund": 5.0, "withdraw": 5.0, "payment": 50.0, "query": 25.0, "list": 10.0, "batch": 5.0}
"""Percentage of requests by class."""
CRITICAL: Final = ("refund", "withdraw")
LIST_OF: Final = 10
FUNDS: Final = 10**12
_CHUNK: Final = 1000


class Asking(NamedTuple):
    """One request. `vouchers` is the number of vouchers that are posted if the request succeeds."""

    request: bytes
    kind: str
    merchant: int
    vouchers: int


class Mix:
    """Requests with unique ids for the merchants 1 to `len(weights)`, in proportion to the weights.

    Each request announces a timeout of `patience_s` seconds.
    """

    def __init__(
        self, token: str, weights: Sequence[float], patience_s: float, shares: Mapping[str, float] = SHARES
    ) -> None:
        self._authorization = f"Authorization: Bearer {token}\r\nX-Request-Timeout-Ms: {patience_s * 1000:.0f}\r\n"
        self._cumulative = list(accumulate(weights))
        self._shares = shares
        self._prefix = fresh_prefix()
        self._numbers = count(1)

    def requests(self, seed: int) -> Iterator[Asking]:
        pick = random.Random(seed)
        kinds, of_kinds = list(self._shares), list(accumulate(self._shares.values()))
        merchants = range(1, len(self._cumulative) + 1)
        while True:
            for kind, number in zip(
                pick.choices(kinds, cum_weights=of_kinds, k=_CHUNK),
                pick.choices(merchants, cum_weights=self._cumulative, k=_CHUNK),
                strict=True,
            ):
                yield self._asking(kind, number)

    def funding(self) -> Iterator[bytes]:
        """Yield batches that credit each merchant with more than it spends."""
        for first in range(1, len(self._cumulative) + 1, 100):
            numbers = range(first, min(first + 100, len(self._cumulative) + 1))
            vouchers = ",".join(self._voucher("pay", number, FUNDS) for number in numbers)
            yield self._post("/v1/vouchers/batch", f'{{"vouchers":[{vouchers}]}}')

    def _asking(self, kind: str, number: int) -> Asking:
        if kind == "query":
            return Asking(self._get(f"/v1/accounts/{merchant(number)}"), kind, number, 0)
        if kind == "list":
            return Asking(self._get(f"/v1/accounts/{merchant(number)}/entries?limit=20"), kind, number, 0)
        if kind == "batch":
            vouchers = ",".join(self._voucher("pay", number) for _ in range(LIST_OF))
            return Asking(self._post("/v1/vouchers/batch", f'{{"vouchers":[{vouchers}]}}'), kind, number, LIST_OF)
        type_ = "pay" if kind == "payment" else kind
        return Asking(self._post("/v1/vouchers", self._voucher(type_, number)), kind, number, 1)

    def _voucher(self, type_: str, number: int, amount: int = 100) -> str:
        theirs, ours = ("credit", "debit") if type_ == "pay" else ("debit", "credit")
        return (
            f'{{"id":"{self._prefix}{next(self._numbers):012x}","type":"{type_}","entries":['
            f'{{"account":"{PLATFORM_ACCOUNT}","side":"{ours}","amount":{amount}}},'
            f'{{"account":"{merchant(number)}","side":"{theirs}","amount":{amount}}}]}}'
        )

    def _get(self, path: str) -> bytes:
        return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{self._authorization}\r\n".encode()

    def _post(self, path: str, body: str) -> bytes:
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{self._authorization}Content-Type: application/json\r\n"
        return f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()
