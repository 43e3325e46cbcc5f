"""The embedded Postgres of a data directory that another process runs: found by what listens, not by a stored address.

A data directory may be a copy, and then every address in it is that of the original. So a server is used only if it
listens in the socket folder of this very directory, and is the postmaster of this very directory's `postgres/`.
"""

import os
import socket
import stat
import struct
from pathlib import Path
from typing import Final

from fundledger.app.claims import CannotServe
from fundledger.app.left_over import is_postmaster
from fundledger.app.socket_folder import known_folder

SOCKET: Final = ".s.PGSQL.5432"
_PEER: Final = struct.Struct("3i")
_CONNECT_S: Final = 5.0


def own_socket_folder(data_dir: Path) -> Path | None:
    """The folder of the socket on which the Postgres of this data directory listens; None when none does.

    Nothing is sent. Raises CannotServe when another process listens there, or when this user may not ask.
    """
    home = data_dir / "postgres"
    folder = known_folder(data_dir, "pg")
    if folder is None or not home.exists():
        return None
    try:
        pid = _listener(folder)
    except PermissionError:
        raise CannotServe(f"{folder} belongs to user {folder.stat().st_uid}: run this command as that user") from None
    if pid is None:
        return None
    if not is_postmaster(pid, home):
        raise CannotServe(
            f"process {pid} listens in {folder}, but it is not the Postgres of {home}: it gets no password. Stop it, "
            f"or remove {folder}"
        )
    return folder


def _listener(folder: Path) -> int | None:
    """The id of the process that listens on the socket in a folder, None when none does."""
    path = folder / SOCKET
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return None
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(_CONNECT_S)
            probe.connect(str(path))
            pid, _, _ = _PEER.unpack(probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
            return int(pid)
    except (FileNotFoundError, NotADirectoryError, ConnectionError, TimeoutError):
        return None
