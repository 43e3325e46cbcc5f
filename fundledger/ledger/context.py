"""Posting context of the ledger: everything that posting a batch needs besides a database session."""

import msgspec

from fundledger.ledger.model import clock
from fundledger.ledger.store.accounts import Layout
from fundledger.ledger.store.directory import Directory
from fundledger.security.keys import Keys


class Books(msgspec.Struct):
    """The posting context of one worker.

    - `ordinal`: the number of the worker; it determines the slots that the worker prefers
    - `summarises`: True if a batch writes one summary for all lines of one module on one sub-account of a platform
      account
    - `buffering`: True if the worker writes credits of buffered accounts to the buffer; while the backlog is too large,
      `buffering` is False, and the worker posts these credits directly
    """

    keys: Keys
    directory: Directory
    layout: Layout
    calendar: clock.AccountingCalendar
    ordinal: int
    summarises: bool = True
    buffering: bool = True
