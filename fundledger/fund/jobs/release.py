"""Background job of the fund service that releases parked orders: when the accounts of a merchant are open again, its
parked facts are posted to these accounts.
"""

import logging
from collections.abc import Mapping
from typing import Final

import asyncpg

from fundledger.client.types import Account
from fundledger.fund.account_gateway import Unverified
from fundledger.fund.model import accounts
from fundledger.fund.model.order import CHARGING, Kind, Order
from fundledger.fund.model.split import merchants_of
from fundledger.fund.poster import PARKED_S, Overtaken, Posting
from fundledger.fund.store.macs import Tampered
from fundledger.fund.store.orders import order_from
from fundledger.fund.store.queries import SQL

AT_ONCE: Final = 100
PARKED_MAX_S: Final = 600.0
"""The maximum seconds between two reads of the accounts of a merchant with a parked order."""
_log = logging.getLogger(__name__)


class Releaser:
    """The job. `due_s`: seconds until the recoverer takes an order whose release has no known outcome. Several
    processes may run the job concurrently.
    """

    def __init__(self, posting: Posting, due_s: float) -> None:
        self._posting = posting
        self._due_s = due_s

    async def release_some(self) -> tuple[int, float]:
        """Run once. Return `(number of orders that were looked at, 0)`: a parked order waits for an account, not for
        this job. An order whose accounts cannot be read, or whose release fails, does not delay the others. Raises
        GatewayFault if the account service does not answer, and what asyncpg raises if it does not answer.
        """
        rows = await self._posting.pool.fetch(SQL["due_parked"], AT_ONCE, PARKED_S, PARKED_MAX_S)
        found: dict[str, Account | None] = {}
        for order in map(order_from, rows):
            try:
                self._posting.macs.check(order)
                missing = [id_ for id_ in _needed(order) if id_ not in found]
                found |= {**dict.fromkeys(missing), **await self._posting.gateway.balances(missing)}
                if is_taken(order, found):
                    await self._posting.release(order, self._due_s)
            except (Tampered, Unverified, Overtaken):
                continue
            except asyncpg.PostgresError as error:
                _log.error(
                    "the release of %s %s failed: %s",
                    *(order.kind, order.id, error),
                    extra={"event": "release_failed", "order": str(order.id)},
                )
        return len(rows), 0.0


def _needed(order: Order) -> dict[str, bool]:
    """Return the accounts that have to take an order, and for each whether the order credits it. Left out are the
    accounts `available` and `receivable` of a merchant that is charged, because either may take all of it.
    """
    pending, parked = accounts.pending(order.merchant), accounts.suspense_parked(order.currency)
    if order.kind in CHARGING:
        return {parked: True, **({pending: False} if order.from_pending else {})}
    if order.settle == "later":
        return {parked: False, pending: True}
    # A payment credits the fee, a payout return debits the part of the fee that it returns.
    charged = order.kind is not Kind.PAYOUT_RETURN
    fee = {accounts.fee_income(order.currency): charged} if order.fee else {}
    tax = {accounts.tax_output(order.currency): charged} if order.tax else {}
    return {parked: False, **{accounts.available(merchant): True for merchant in merchants_of(order)}, **fee, **tax}


def is_taken(order: Order, found: Mapping[str, Account | None]) -> bool:
    """Return whether the accounts of an order take its entries. A frozen account takes credits unless its scope is
    `all`.
    """
    for id_, is_credited in _needed(order).items():
        account = found.get(id_)
        if account is None or account.status == "closed":
            return False
        if account.status != "open" and not (is_credited and account.frozen_scope != "all"):
            return False
    return True
