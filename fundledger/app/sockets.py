"""The unix sockets between the workers and their supervisor, in the run directory: who asks where, and in which form.

A worker of either service, and a process of daemons, answers each connection with its snapshot, as JSON, and closes it.
That it does is also how the supervisor knows that it serves. The supervisor reads one line, what is asked for, and
answers its length and then as many bytes: half an answer is never taken for a whole one.
"""

import asyncio
from pathlib import Path
from typing import Final

from fundledger.ledger.fault import Unavailable

METRICS: Final = b"metrics\n"
HOT_KEYS: Final = b"hotkeys\n"
ANSWER_S: Final = 3.0
"""Longer than the supervisor takes when no worker answers it."""
_LENGTH = 4


def worker_socket(run_dir: Path, ordinal: int) -> Path:
    return run_dir / f"worker-{ordinal}.sock"


def fund_socket(run_dir: Path, ordinal: int) -> Path:
    """Of a worker of the fund service."""
    return run_dir / f"fund-{ordinal}.sock"


def supervisor_socket(run_dir: Path) -> Path:
    return run_dir / "metrics.sock"


def daemons_socket(run_dir: Path, ordinal: int) -> Path:
    return run_dir / f"daemons-{ordinal}.sock"


def fund_supervisor_socket(run_dir: Path) -> Path:
    return run_dir / "fund-metrics.sock"


def remove_left_over(run_dir: Path) -> None:
    """The sockets of processes that are gone."""
    for pattern in ("worker-*.sock", "fund-*.sock", "daemons-*.sock"):
        for left in run_dir.glob(pattern):
            left.unlink()


def framed(body: bytes) -> bytes:
    return len(body).to_bytes(_LENGTH, "big") + body


async def ask_supervisor(run_dir: Path, what: bytes) -> bytes:
    """One of METRICS and HOT_KEYS of the account service, as bytes to pass on. Raises Unavailable."""
    return await ask(supervisor_socket(run_dir), what)


async def ask(path: Path, what: bytes) -> bytes:
    """What the supervisor answers on one of its sockets. Raises Unavailable."""
    try:
        async with asyncio.timeout(ANSWER_S):
            reader, writer = await asyncio.open_unix_connection(str(path))
            try:
                writer.write(what)
                return await reader.readexactly(int.from_bytes(await reader.readexactly(_LENGTH), "big"))
            finally:
                writer.close()
    except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
        raise Unavailable("the supervisor does not answer") from error
