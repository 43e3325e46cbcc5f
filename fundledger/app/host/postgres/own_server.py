"""Look-up of the running embedded Postgres of a data directory, by its listening socket instead of a stored address.

In a copy of a data directory, every stored address is that of the original. So a server is used only if it listens in
the socket folder of this data directory, and is the postmaster of `postgres/` in this data directory.
"""

import os
import socket
import stat
import struct
from pathlib import Path
from typing import Final

from fundledger.app.host.postgres.left_over import is_postmaster
from fundledger.app.host.preflight import CannotServe
from fundledger.app.host.socket_folder import known_folder

SOCKET: Final = ".s.PGSQL.5432"
_PEER: Final = struct.Struct("3i")
_CONNECT_S: Final = 5.0


def own_socket_folder(data_dir: Path) -> Path | None:
    """Return the folder of the socket on which the Postgres of this data directory listens, None if none listens.

    Sends nothing. Raises CannotServe if another process listens there, or if this user has no access.
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
            f"process {pid} listens in {folder}, but it is not the Postgres of {home}: no password was sent. Stop it, "
            f"or remove {folder}"
        )
    return folder


def _listener(folder: Path) -> int | None:
    """Return the id of the process that listens on the socket in a folder, None if none does."""
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
