"""What an error of the database proves: whether the transaction may have been committed, and whether waiting helps.

Postgres ends a statement with an ERROR only while its transaction can still be rolled back, and rolls it back; an
error past that point is a PANIC, which cuts the connection. So an ERROR proves that nothing of a statement that commits
itself was written. FATAL and PANIC prove nothing: they may come after the commit and before its answer. Nor does a
connection that ends. `COMMIT AND CHAIN` begins the next transaction after the commit, for which memory may be missing.

| SQLSTATE | Meaning | Statement that commits itself | COMMIT AND CHAIN |
|---|---|---|---|
| 53100 | the disk is full | rolled back | rolled back |
| 53200, 53400 | memory, a limit | rolled back | unknown |
| 53300 (FATAL, of a new connection) | too many connections | never sent | - |
| 28P01, 28000 (FATAL, of a new connection) | the password was renewed | never sent | - |
| 57014 | cancelled, timed out | rolled back | rolled back |
| 40001, 40P01 | serialization, deadlock | rolled back | rolled back |
| 25006 | read only | rolled back | rolled back |
| 55P03 | a lock was not to be had | rolled back | rolled back |
| 23xxx, P0001 and others | a constraint, a trigger, a bug | rolled back | rolled back |
| 57P01, 57P02, 57P03 | shutdown, crash, start | unknown | unknown |
| 08xxx, no answer | the connection ended, as a pooler says, too | unknown | unknown |
"""

from typing import Final

import asyncpg

PASSING: Final = (
    OSError,
    # What asyncpg says of an idle connection that the server closed with a last word.
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.LockNotAvailableError,
    # Of a new connection: each start of `serve` renews the passwords of its roles; earlier workers may still drain.
    asyncpg.InvalidAuthorizationSpecificationError,
)
"""The database, or the way to it, went away, or it cannot write now; that may pass."""
_OF_THE_NEXT: Final = ("53200", "53400")
_ROLLED_BACK_BY: Final = "ERROR"
_OF_THE_CONNECTION: Final = ("08", "57P0")
"""Errors of these classes say that the connection ended. A pooler in front of Postgres calls them ERROR, too, and does
not know what the server did.
"""


def was_rolled_back(error: BaseException, *, chained: bool = False) -> bool:
    """Whether the error, raised by a statement that commits, proves that nothing was committed.

    `chained`: the statement was COMMIT AND CHAIN. Otherwise it is one that is a transaction, or COMMIT. Errors of the
    client (a connection that ended, a time-out) prove nothing.
    """
    if not isinstance(error, asyncpg.PostgresError) or severity(error) != _ROLLED_BACK_BY:
        return False
    if str(error.sqlstate).startswith(_OF_THE_CONNECTION):
        return False
    return not (chained and error.sqlstate in _OF_THE_NEXT)


def severity(error: asyncpg.PostgresError) -> str | None:
    """As the server said it, whatever its language; None of an error that the client made up."""
    found = getattr(error, "severity_en", None)
    return None if found is None else str(found)
