"""Start-up checks of the host of the services: lock of the data directory, free ports, secret files."""

import asyncio
import fcntl
import os
import socket
import stat
from pathlib import Path
from typing import Any

from fundledger.settings import PREFIX

PORT_WAIT_S = 10.0


class CannotServe(Exception):
    """`serve` cannot start; the message is one line with the reason."""


def lock(data_dir: Path) -> Any:
    """Lock the data directory until the returned file is closed, or the process ends. Raises CannotServe."""
    try:
        _make(data_dir)
        handle = os.open(data_dir / "serve.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        file = os.fdopen(handle, "r+")
    except OSError as error:
        raise CannotServe(f"{PREFIX}DATA_DIR={str(data_dir)!r}: {error.strerror}; use a writable folder") from None
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
    """Create the data directory. Raises OSError, and CannotServe if all users may write to an existing directory."""
    data_dir.parent.mkdir(parents=True, exist_ok=True)
    try:
        data_dir.mkdir()
        # `chmod` ignores the umask. The system user of Postgres must be able to traverse this folder.
        data_dir.chmod(0o711)
    except FileExistsError:
        mode = stat.S_IMODE(data_dir.stat().st_mode)
        if mode & stat.S_IWOTH:
            message = f"all users may write to it (mode {mode:04o}); use a folder of mode 0711 or 0700"
            raise CannotServe(f"{PREFIX}DATA_DIR={str(data_dir)!r}: {message}") from None


async def wait_for_port(host: str, port: int, setting: str) -> None:
    """Wait until the port is free. Workers share their port, so only this check detects another service on the port.

    `setting`: name of the setting to change. Raises CannotServe.
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
                        f"{PREFIX}{setting}={port}: {error.strerror}; stop the process on it, or choose another port"
                    )
                    raise CannotServe(message) from None
            else:
                return
        await asyncio.sleep(0.2)


def write_secret(path: Path, text: str) -> None:
    """Write a file with mode 0600, replacing its content."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(text)
