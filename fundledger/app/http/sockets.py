"""Unix sockets between HTTP workers and their supervisor, in the run directory: paths and wire format.

Workers and background job processes answer each connection with a snapshot of their metrics as JSON, and close the
connection. The answer also proves to the supervisor that the process serves. On its own socket, the supervisor reads
one line, the name of a page. The supervisor answers with the length of the page and the bytes of the page, so that a
truncated page is detected.
"""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from fundledger.faults import Unavailable

METRICS: Final = b"metrics\n"
HOT_KEYS: Final = b"hotkeys\n"
ANSWER_S: Final = 3.0
"""Time limit in seconds for an answer of the supervisor. The supervisor waits for workers for a shorter time."""
_LENGTH = 4


def worker_socket(run_dir: Path, ordinal: int) -> Path:
    return run_dir / f"worker-{ordinal}.sock"


def fund_socket(run_dir: Path, ordinal: int) -> Path:
    """Return the path of the socket of a worker of the fund service."""
    return run_dir / f"fund-{ordinal}.sock"


def supervisor_socket(run_dir: Path) -> Path:
    return run_dir / "metrics.sock"


def jobs_socket(run_dir: Path, ordinal: int) -> Path:
    return run_dir / f"jobs-{ordinal}.sock"


def fund_supervisor_socket(run_dir: Path) -> Path:
    return run_dir / "fund-metrics.sock"


def remove_left_over(run_dir: Path) -> None:
    """Remove the sockets that processes of an earlier run have left. Call before processes are started."""
    for pattern in ("worker-*.sock", "fund-*.sock", "jobs-*.sock"):
        for left in run_dir.glob(pattern):
            left.unlink()


async def answer_with(path: Path, snapshot: Callable[[], msgspec.Struct]) -> asyncio.Server:
    """Answer each connection to the socket `path` with the result of `snapshot`. The caller closes the server."""

    async def report(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del reader
        with contextlib.suppress(ConnectionError):
            writer.write(msgspec.json.encode(snapshot()))
            await writer.drain()
        writer.close()

    path.unlink(missing_ok=True)  # noqa: ASYNC240 - before anything is served
    return await asyncio.start_unix_server(report, str(path))


def framed(body: bytes) -> bytes:
    return len(body).to_bytes(_LENGTH, "big") + body


async def ask(path: Path, what: bytes) -> bytes:
    """Return the page `what` from the supervisor's socket at `path`. Raises Unavailable."""
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
