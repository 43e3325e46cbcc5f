"""The Postgres that an earlier `serve` left behind: recognised by what it is, never by a number in a file.

A process id that was written before a crash or a restart of the machine may be that of any process today.
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
"""One more than Linux has process ids."""
_LOOK_EVERY_S: Final = 0.05


async def stop_left_over(home: Path) -> int | None:
    """Stop the postmaster whose data directory is `home`, if one runs. Answers the id of one that does not end."""
    for pid in postmasters(home):
        if not await _stop(pid, home):
            return pid
    return None


def postmasters(home: Path) -> list[int]:
    """The ids of postmasters that work in `home`; none where there is no `/proc`."""
    return [int(path.name) for path in Path("/proc").glob("[0-9]*") if is_postmaster(int(path.name), home)]


def is_postmaster(pid: int, home: Path) -> bool:
    """Whether the process is a postmaster (not one of its backends), and works in the data directory `home`."""
    process = Path(f"/proc/{pid}")
    try:
        program = (process / "exe").readlink().name.removesuffix(" (deleted)")
        if program != "postgres" or not (process / "cwd").samefile(home):
            return False
        return not (process / "cmdline").read_bytes().startswith(b"postgres:")
    except OSError:
        return False


def forget_stale_id(home: Path) -> bool:
    """Replace the process id in `postmaster.pid` when a process has it that is no postmaster of `home`.

    Postgres would refuse to start beside it. The rest of the file stays, since Postgres looks by it whether the shared
    memory of its last life is still used. To be called when no postmaster of `home` runs.
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
    """Sockets of a Postgres that is gone, and the files that say which process made them."""
    for path in folder.glob(".s.PGSQL.*"):
        path.unlink(missing_ok=True)


async def _stop(pid: int, home: Path) -> bool:
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        # The handle is of one process for good; the id may have passed on to another one before.
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
