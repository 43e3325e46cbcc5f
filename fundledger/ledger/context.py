"""Posting context of the ledger: everything a batch needs beside its session."""

import msgspec

from fundledger.ledger.model import clock
from fundledger.ledger.store.accounts import Layout
from fundledger.ledger.store.directory import Directory
from fundledger.security.keys import Keys


class Books(msgspec.Struct):
    """The posting context of one worker.

    `ordinal` is the number of the worker, which selects the slots it prefers. With `summarises`, a batch writes one
    entry per sub-account of a platform account, however many vouchers it has. With `buffering`, credits of buffered
    accounts wait in the buffer; otherwise the backlog is too large and they are posted directly.
    """

    keys: Keys
    directory: Directory
    layout: Layout
    calendar: clock.AccountingCalendar
    ordinal: int
    summarises: bool = True
    buffering: bool = True
