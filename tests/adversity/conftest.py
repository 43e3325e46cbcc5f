"""Fixtures of the adversity tests: a ledger behind a proxy, and a summary of the attempts at the end of the run."""

import os
import random
from collections.abc import AsyncIterator, Callable

import pytest

from fundledger.faults import Fault
from fundledger.ledger import posting
from fundledger.ledger.model.batch import Command, Outcome
from fundledger.ledger.posting import post_vouchers
from fundledger.ledger.store.session import Session
from tests.adversity.proxy import Proxy
from tests.conftest import ADVERSITY
from tests.support.ledger import Ledger

Tell = Callable[..., None]


class Torn:
    """A ledger whose posting session goes through a proxy; its other connections go directly to the database."""

    def __init__(self, ledger: Ledger, proxy: Proxy) -> None:
        self.ledger = ledger
        self.proxy = proxy
        self.session = Session(proxy.dsn, "torn lane")

    async def reconnect(self) -> None:
        """Open a session with an empty cache on new connections. A batch then causes the same bytes each time."""
        self.session.drop()
        self.session = Session(self.proxy.dsn, "torn lane")
        await self.session.open()

    async def post(self, *commands: Command) -> list[Outcome | Fault]:
        return await post_vouchers(self.session, self.ledger.books, commands)


@pytest.fixture
async def torn(ledger: Ledger) -> AsyncIterator[Torn]:
    async with Proxy(ledger.dsn) as proxy:
        torn = Torn(ledger, proxy)
        yield torn
        torn.session.drop()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the waits between retries, so that hundreds of cuts take seconds."""
    monkeypatch.setattr(posting.random, "uniform", lambda low, high: 0.001)


@pytest.fixture
def seed() -> int:
    """Return a new seed in each run, or the value of ADVERSITY_SEED if it is set."""
    given = os.environ.get("ADVERSITY_SEED")
    return random.SystemRandom().randrange(1 << 32) if given is None else int(given)


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Tell:
    """Return `tell(what, count, seed)`, which adds a line to the end of the run: the number of attempts of the test.

    With a seed, the attempts were a sample, and the line states which share of faults the sample excludes. Without a
    seed, the test has tried all cases.
    """

    def add(what: str, count: int, seed: int | None = None) -> None:
        line = f"{what}: all {count} tried, 0 wrong"
        if seed is not None:
            line = f"{what}: seed {seed}, {count} tried, 0 wrong: fewer than {3 / count:.1e} are, with 95 % confidence"
        request.node.user_properties.append((ADVERSITY, line))

    return add
