"""Request classes of the rate limiter and the load shedder, with the ranks by which requests are shed."""

from enum import StrEnum
from typing import Final


class ApiClass(StrEnum):
    """Request classes, the most important first.

    For the class of a voucher, see `app/account/requests/charged_accounts.py`.
    """

    REFUND = "refund"
    WITHDRAW = "withdraw"
    CONFIRM = "confirm"
    PAYMENT = "payment"
    ADMIN = "admin"
    NOTIFY = "notify"
    QUERY = "query"
    LIST = "list"
    BATCH = "batch"


RANKS: Final = {
    ApiClass.REFUND: 0,
    ApiClass.WITHDRAW: 0,
    ApiClass.CONFIRM: 0,
    ApiClass.PAYMENT: 1,
    ApiClass.ADMIN: 1,
    ApiClass.NOTIFY: 2,
    ApiClass.QUERY: 3,
    ApiClass.LIST: 4,
    ApiClass.BATCH: 5,
}
"""Rank of each class; rank 0 is shed last."""

CRITICAL: Final = frozenset(api_class for api_class, rank in RANKS.items() if rank == 0)
