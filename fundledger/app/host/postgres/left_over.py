"""Embedded Postgres left running by an earlier `serve`: detection by its program and data directory, and shutdown.

A process id in a file is not used: after a crash or reboot it may belong to any process.
"""

import asyncio
import contextlib
import os
import select
import signal
from pathlib import Path
from typing import Final

STOP_S: Final = 60.0
QUIT_S: Final = 10.0
NO_PROCESS: Final = 4_194_305
"""One more than the highest process id of Linux."""
_LOOK_EVERY_S: Final = 0.05


async def stop_left_over(home: Path) -> int | None:
    """Stop all postmasters with the data directory `home`. Return the id of one that does not end, or None."""
    for pid in postmasters(home):
        if not await _stop(pid, home):
            return pid
    return None


def postmasters(home: Path) -> list[int]:
    """Return the ids of postmasters with the data directory `home`; empty without `/proc`."""
    return [int(path.name) for path in Path("/proc").glob("[0-9]*") if is_postmaster(int(path.name), home)]


def is_postmaster(pid: int, home: Path) -> bool:
    """Return whether the process is a postmaster (not a backend) with the data directory `home`."""
    process = Path(f"/proc/{pid}")
    try:
        program = (process / "exe").readlink().name.removesuffix(" (deleted)")
        if program != "postgres" or not (process / "cwd").samefile(home):
            return False
        return not (process / "cmdline").read_bytes().startswith(b"postgres:")
    except OSError:
        return False


def forget_stale_id(home: Path) -> bool:
    """Replace the process id in `postmaster.pid` if a process that is no postmaster of `home` has this id.

    Postgres would refuse to start because of that process. The rest of the file is kept: Postgres uses it to check
    whether its previous shared memory is still in use. Call this function only when no postmaster of `home` runs.
    Return whether the id was replaced.
    """
    path = home / "postmaster.pid"
    try:
        handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    with os.fdopen(handle, "r+") as file:
        first, _, rest = file.read().partition("\n")
        with contextlib.suppress(ValueError):
            if Path(f"/proc/{int(first)}").exists() and not is_postmaster(int(first), home):
                file.seek(0)
                file.write(f"{NO_PROCESS}\n{rest}")
                file.truncate()
                return True
    return False


def remove_sockets(folder: Path) -> None:
    """Remove the sockets of a Postgres that has ended, and their lock files."""
    for path in folder.glob(".s.PGSQL.*"):
        path.unlink(missing_ok=True)


async def _stop(pid: int, home: Path) -> bool:
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        # The handle refers to one process permanently, but the id may have been reused before the handle was opened.
        if not is_postmaster(pid, home):
            return True
        for number, within_s in ((signal.SIGINT, STOP_S), (signal.SIGQUIT, QUIT_S)):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, number)
            if await _ends(handle, within_s):
                return True
        return False
    finally:
        os.close(handle)


async def _ends(handle: int, within_s: float) -> bool:
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + within_s
    while not select.select([handle], [], [], 0)[0]:
        if loop.time() > give_up_at:
            return False
        await asyncio.sleep(_LOOK_EVERY_S)
    return True
