"""What a request is for: the classes by which callers are limited and, when there is too much, shed."""

from enum import StrEnum
from typing import Final


class ApiClass(StrEnum):
    """Highest first. The class of a voucher follows from what it moves, see `app/moved.py`."""

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
"""0 is dropped last."""

CRITICAL: Final = frozenset(api_class for api_class, rank in RANKS.items() if rank == 0)
