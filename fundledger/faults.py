"""Faults of the fundledger services, and errors for stored rows that do not match their MACs.

A retry after a fault has no second effect, because each id takes effect at most once.
"""


class Fault(Exception):
    """A technical failure of a request. `retry_is_safe` says whether the caller may send the same request again."""

    retry_is_safe = True


class Unavailable(Fault):
    """A fault that occurred before anything was written: the database cannot be reached, or a queue is full."""


class OutcomeUnknown(Fault):
    """A fault during the commit: the connection broke, and the database could not be reached again in time.

    The transaction may have been committed.
    """


class GuardHit(Fault):
    """A bug: a guard of the database rejected a change that the rules allowed. Nothing was written for the command."""

    retry_is_safe = False


class RecordTampered(Exception):
    """An error: the stored record of an account, a voucher or a hold does not match its MAC.

    Until an operator has examined the record, each request that needs it is refused as if the account were frozen.
    """


class BooksTampered(Exception):
    """An error: rows of the account `account_id` do not match their MACs. No amount of the account is returned.

    The code that found the rows also logs and stores a finding. The code that answers the request does not log the
    finding again. A retry does not help. Other accounts are not affected.
    """

    account_id: str
