"""Faults of the services, and errors for stored rows that do not match their MACs.

A retry after a fault has no second effect, because an id takes effect only once, permanently.
"""


class Fault(Exception):
    """A failure. `retry_is_safe` says whether the same request may be sent again."""

    retry_is_safe = True


class Unavailable(Fault):
    """A fault before anything was written: the database cannot be reached, or a queue is full."""


class OutcomeUnknown(Fault):
    """A fault during the commit: the connection broke, and the database could not be reached again in time.

    The transaction may have been committed.
    """


class GuardHit(Fault):
    """A bug: a guard of the database rejected a change that the rules allowed. Nothing was written for the item."""

    retry_is_safe = False


class RecordTampered(Exception):
    """A record of an account, a voucher or a hold that does not match its MAC.

    A request that needs the record is refused like one on a frozen account, until an operator has examined it.
    """


class BooksTampered(Exception):
    """Rows of the account `account_id` fail verification. No figure of the account is returned.

    The read that found the rows logs and stores the finding, so the finding is not logged again when the request is
    answered. A retry does not help. Other accounts are not affected.
    """

    account_id: str
