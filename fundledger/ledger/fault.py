"""What can break while posting, and whether asking again is safe. It always is: ids are used once, for ever."""


class Fault(Exception):
    """Something broke. `retry_is_safe` tells a caller whether the same request may be sent again."""

    retry_is_safe = True


class Unavailable(Fault):
    """Nothing was written: the database could not be reached, or too much is waiting already."""


class OutcomeUnknown(Fault):
    """The connection broke around the commit and the database did not come back in time: it may have happened."""


class GuardHit(Fault):
    """The database refused what the rules allowed. A bug, and loud: nothing was written for this item."""

    retry_is_safe = False
