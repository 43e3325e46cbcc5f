"""Model of the fund service: the outcome of a voucher, as the account service reports it."""

from datetime import datetime

import msgspec


class PostingResult(msgspec.Struct, frozen=True):
    """The outcome of a voucher: posted, or refused with a `problem` (JSON). `at`: the time of posting, None if the
    account service did not return it.

    `stuck`: the account service did not record the problem under the voucher id, so the voucher may still be posted.
    Every retry gets the same problem until an operator removes its cause.
    """

    problem: bytes | None = None
    at: datetime | None = None
    stuck: bool = False
