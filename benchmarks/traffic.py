"""Benchmark requests to the service and to a reference server, for wrk and for the project's drivers."""

import random
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import accumulate, count, islice
from pathlib import Path

PLATFORM_ACCOUNT = "bank:bench"
VOUCHERS = Path(__file__).with_name("vouchers.lua")


@dataclass(frozen=True)
class Traffic:
    """Requests of one kind to one port. wrk needs `script` and `environment`, the project's drivers need `requests`.

    Each call of `environment` or `requests` makes new ids.
    """

    port: int
    script: Path
    environment: Callable[[], dict[str, str]]
    requests: Callable[[], Iterator[bytes]]
    vouchers_each: int = 1

    def on_port(self, port: int) -> "Traffic":
        """Return the same requests to another port."""
        return replace(self, port=port)


def merchant(number: int) -> str:
    return f"merchant:{number}:available"


def fresh_prefix() -> str:
    """Return a new UUID without its last 12 digits."""
    r = secrets.token_hex(12)
    return f"{r[:8]}-{r[8:12]}-7{r[12:15]}-8{r[15:18]}-"


def service_traffic(
    port: int, token: str, accounts: int, size: int = 0, ids: str = "ordered", shape: str = "even"
) -> Traffic:
    """Return payments that are spread over the merchants 1 to `accounts`. If `size` > 0, they are in batches of `size`.

    `shape` is `even`, `zipf` (the share of the n-th merchant is proportional to n^-1.1), or `refund` (a voucher is a
    refund with a probability of one half).
    """

    def environment() -> dict[str, str]:
        return {
            "TOKEN": token,
            "RUN": fresh_prefix(),
            "SEED": str(secrets.randbits(30)),
            "ACCOUNTS": str(accounts),
            "SIZE": str(size),
            "IDS": ids,
            "SHAPE": shape,
        }

    def requests() -> Iterator[bytes]:
        pick = random.Random()
        merchants = _zipf(pick, accounts) if shape == "zipf" else (pick.randint(1, accounts) for _ in count())
        vouchers = (
            _voucher(id_, number, back=shape == "refund" and pick.random() < 0.5)
            for id_, number in zip(_ids(ids), merchants, strict=False)
        )
        if size == 0:
            return (post("/v1/vouchers", voucher, token) for voucher in vouchers)
        return (post("/v1/vouchers/batch", _list(vouchers, size), token) for _ in count())

    return Traffic(port, VOUCHERS, environment, requests, max(size, 1))


def reference_traffic(port: int, script: Path, accounts: int, size: int = 0) -> Traffic:
    """Return the payments of `service_traffic` in the format of the reference server. The folder of `script` contains
    the wrk scripts.
    """

    def requests() -> Iterator[bytes]:
        pick = random.Random()
        payments = (
            f'{{"id":"{id_}","debit":0,"credit":{pick.randint(1, accounts)},"amount":100}}' for id_ in _ids("ordered")
        )
        if size == 0:
            return (post("/", payment) for payment in payments)
        return (post("/bulk", f"[{_join(payments, size)}]") for _ in count())

    wrk_script = script.with_name("bulk.lua" if size else "pay.lua")
    return Traffic(port, wrk_script, lambda: {"ACCOUNTS": str(accounts)}, requests, max(size, 1))


def opening(token: str, first: int, last: int) -> Iterator[bytes]:
    """Return requests that open the platform's account and the merchants `first` to `last`."""
    yield _open(token, PLATFORM_ACCOUNT, "bench", "bank")
    for number in range(first, last + 1):
        yield _open(token, merchant(number), f"merchant:{number}", "merchant_available")


def sweep(token: str, accounts: int, size: int) -> Iterator[bytes]:
    """Return batches with one payment to each merchant."""
    ids = _ids("ordered")
    for first in range(1, accounts + 1, size):
        vouchers = (_voucher(next(ids), number) for number in range(first, min(first + size, accounts + 1)))
        yield post("/v1/vouchers/batch", _list(vouchers, size), token)


def _ids(kind: str) -> Iterator[str]:
    if kind == "random":
        while True:
            r = secrets.token_hex(15)
            yield f"{r[:8]}-{r[8:12]}-4{r[12:15]}-a{r[15:18]}-{r[18:]}"
    prefix = fresh_prefix()
    for number in count(1):
        yield f"{prefix}{number:012x}"


def buffering(token: str, last: int) -> Iterator[bytes]:
    """Return requests that set the merchants 1 to `last` to buffered credits."""
    for number in range(1, last + 1):
        yield post(f"/v1/accounts/{merchant(number)}/policy", '{"posting":"buffered"}', token)


def _zipf(pick: random.Random, accounts: int) -> Iterator[int]:
    cumulative = list(accumulate(number**-1.1 for number in range(1, accounts + 1)))
    while True:
        yield from pick.choices(range(1, accounts + 1), cum_weights=cumulative, k=1000)


def _voucher(id_: str, number: int, *, back: bool = False) -> str:
    if back:
        return (
            f'{{"id":"{id_}","type":"refund","entries":[{{"account":"{merchant(number)}","side":"debit","amount":90}},'
            f'{{"account":"{PLATFORM_ACCOUNT}","side":"credit","amount":90}}]}}'
        )
    return (
        f'{{"id":"{id_}","type":"pay","entries":[{{"account":"{PLATFORM_ACCOUNT}","side":"debit","amount":100}},'
        f'{{"account":"{merchant(number)}","side":"credit","amount":100}}]}}'
    )


def _open(token: str, id_: str, owner: str, type_: str) -> bytes:
    return post("/v1/accounts", f'{{"id":"{id_}","owner":"{owner}","type":"{type_}","currency":"CNY"}}', token)


def _list(vouchers: Iterator[str], size: int) -> str:
    return f'{{"vouchers":[{_join(vouchers, size)}]}}'


def _join(items: Iterator[str], size: int) -> str:
    return ",".join(islice(items, size))


def post(path: str, body: str, token: str | None = None) -> bytes:
    authorization = "" if token is None else f"Authorization: Bearer {token}\r\n"
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{authorization}Content-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()
