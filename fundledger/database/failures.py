"""Classification of database errors: whether the transaction may have been committed, and whether a retry can help.

Postgres raises an ERROR only while the transaction can still be rolled back, and then rolls the transaction back. An
error after that point is a PANIC, which closes the connection. After an ERROR, a query that is a transaction of its own
has therefore written nothing. After FATAL, PANIC or a lost connection the outcome is unknown: the commit may have
succeeded before the response was sent. `COMMIT AND CHAIN` commits and then begins the next transaction. If memory runs
out, the commit can succeed and the start of the next transaction can fail.

| SQLSTATE | Meaning | Query that is a transaction of its own | COMMIT AND CHAIN |
|---|---|---|---|
| 53100 | the disk is full | rolled back | rolled back |
| 53200, 53400 | memory or a configured limit is exhausted | rolled back | unknown |
| 53300 (FATAL, of a new connection) | too many connections | never sent | - |
| 28P01, 28000 (FATAL, of a new connection) | the password was renewed | never sent | - |
| 57014 | cancelled, timed out | rolled back | rolled back |
| 40001, 40P01 | serialization, deadlock | rolled back | rolled back |
| 25006 | read only | rolled back | rolled back |
| 55P03 | a lock was not available | rolled back | rolled back |
| 23xxx, P0001 and others | a constraint, a trigger, a bug | rolled back | rolled back |
| 57P01, 57P02, 57P03 | shutdown, crash, start | unknown | unknown |
| 08xxx, no response | the connection ended; also reported by poolers | unknown | unknown |
"""

from typing import Final

import asyncpg

PASSING: Final = (
    OSError,
    # asyncpg raises this error for an idle connection that the server has closed with a message.
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.LockNotAvailableError,
    # This error is raised for new connections only. Each start of `serve` renews the passwords of the database roles.
    # At that time, workers of the previous start may still be finishing their last requests.
    asyncpg.InvalidAuthorizationSpecificationError,
)
"""Temporary errors: the database or the network is unavailable, or the database cannot write at the moment."""
_OF_THE_NEXT: Final = ("53200", "53400")
_ROLLED_BACK_BY: Final = "ERROR"
_OF_THE_CONNECTION: Final = ("08", "57P0")
"""First characters of SQLSTATEs that report a lost connection. A connection pooler in front of Postgres may raise an
error with such a SQLSTATE and severity ERROR although the server has committed the transaction.
"""


def was_rolled_back(error: BaseException, *, chained: bool = False) -> bool:
    """Return whether `error`, raised by a query that commits, proves that nothing was committed.

    `chained`: True if the query was COMMIT AND CHAIN, False if it was COMMIT or a query that is a transaction of its
    own. The result is False for an error that the client raised, such as a lost connection or a timeout.
    """
    if not isinstance(error, asyncpg.PostgresError) or severity(error) != _ROLLED_BACK_BY:
        return False
    if str(error.sqlstate).startswith(_OF_THE_CONNECTION):
        return False
    return not (chained and error.sqlstate in _OF_THE_NEXT)


def severity(error: asyncpg.PostgresError) -> str | None:
    """Return the severity of an error in English, even if the server's messages are in another language.

    Return None for an error that the client raised.
    """
    found = getattr(error, "severity_en", None)
    return None if found is None else str(found)
