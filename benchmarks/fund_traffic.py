"""Payment requests to the fund service, for wrk and for the project's load drivers."""

import random
import secrets
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Final

from benchmarks.traffic import Traffic, post

PAYMENTS: Final = Path(__file__).with_name("payments.lua")
FEE: Final = '{"basis_points":60,"fixed":0,"minimum":1}'


def payments(port: int, token: str, merchants: int, hot: int) -> Traffic:
    """Return payment requests. One in `hot` of them is to merchant 1, the others are spread over all merchants."""

    def environment() -> dict[str, str]:
        seed = str(secrets.randbits(30))
        return {"TOKEN": token, "RUN": fresh_run(), "SEED": seed, "MERCHANTS": str(merchants), "HOT": str(hot)}

    def requests() -> Iterator[bytes]:
        pick, run = random.Random(), fresh_run()
        for number in count(1):
            merchant = 1 if pick.randint(1, hot) == 1 else pick.randint(1, merchants)
            named = f'"merchant":"b{merchant}","order_no":"{run}-0-{number}"'
            amount = pick.randint(100, 50_000)
            yield post("/v1/payments", f'{{{named},"amount":{amount},"currency":"CNY","channel":"simulator"}}', token)

    return Traffic(port, PAYMENTS, environment, requests)


def creating(token: str, merchants: int) -> Iterator[bytes]:
    """Return requests that create the merchants 1 to `merchants`."""
    for number in range(1, merchants + 1):
        body = f'{{"id":"b{number}","name":"Bench {number}","currency":"CNY","fee":{FEE}}}'
        yield post("/v1/merchants", body, token)


def fresh_run() -> str:
    return secrets.token_hex(8)
