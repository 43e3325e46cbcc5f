"""What a poster needs to know beside its session."""

import msgspec

from fundledger.ledger import clock
from fundledger.ledger.accounts import Layout
from fundledger.ledger.directory import Directory
from fundledger.security.keys import Keys


class Books(msgspec.Struct):
    """`ordinal` is the worker's: which slots it prefers. `summarises`: a batch has one entry on a platform account's
    sub-account, however many vouchers. `buffering`: credits of buffered accounts wait to be folded; else too much
    waits, and they are posted directly.
    """

    keys: Keys
    directory: Directory
    layout: Layout
    calendar: clock.AccountingCalendar
    ordinal: int
    summarises: bool = True
    buffering: bool = True
