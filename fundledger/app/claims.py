"""What `serve` takes for itself before anything runs: the data directory and ports; or why it cannot."""

import asyncio
import fcntl
import os
import socket
import stat
from pathlib import Path
from typing import Any

from fundledger.app.settings import PREFIX

PORT_WAIT_S = 10.0


class CannotServe(Exception):
    """Why not, in one line."""


def lock(data_dir: Path) -> Any:
    """Hold the data directory for as long as this process lives. Raises CannotServe."""
    try:
        _make(data_dir)
        handle = os.open(data_dir / "serve.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        file = os.fdopen(handle, "r+")
    except OSError as error:
        raise CannotServe(
            f"{PREFIX}DATA_DIR={str(data_dir)!r}: {error.strerror}, accepted is a writable folder"
        ) from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip() or "another process"
        raise CannotServe(f"{data_dir} is in use by {holder}: stop it or choose another FUNDLEDGER_DATA_DIR") from None
    file.truncate(0)
    file.write(f"fundledger serve, process {os.getpid()}")
    file.flush()
    return file


def _make(data_dir: Path) -> None:
    """Raises OSError; CannotServe when any user may put files there, which would be taken for ours."""
    data_dir.parent.mkdir(parents=True, exist_ok=True)
    try:
        data_dir.mkdir()
        # Whatever the umask is: the user that Postgres runs as passes through it, to a directory of its own.
        data_dir.chmod(0o711)
    except FileExistsError:
        mode = stat.S_IMODE(data_dir.stat().st_mode)
        if mode & stat.S_IWOTH:
            message = f"all users may write to it (mode {mode:04o}); accepted is a folder of mode 0711 or 0700"
            raise CannotServe(f"{PREFIX}DATA_DIR={str(data_dir)!r}: {message}") from None


async def wait_for_port(host: str, port: int, setting: str) -> None:
    """Workers share a port, so nothing but this check would notice another service on it. `setting` is the name of what
    to change. Raises CannotServe.
    """
    give_up_at = asyncio.get_running_loop().time() + PORT_WAIT_S
    while True:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                if asyncio.get_running_loop().time() > give_up_at:
                    message = (
                        f"{PREFIX}{setting}={port}: {error.strerror}; stop what listens there or choose another port"
                    )
                    raise CannotServe(message) from None
            else:
                return
        await asyncio.sleep(0.2)


def write_secret(path: Path, text: str) -> None:
    """Mode 0600, anew."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(text)
