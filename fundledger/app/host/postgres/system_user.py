"""System user of the embedded Postgres under root, and its access to data directory and binaries.

No folder mode is changed. If the folders above the data directory are private, Postgres inherits open directories, and
reaches them through `/proc/self/fd`. If the folders above the binaries are private, the binaries are copied below
`/var/lib/fundledger`.
"""

import contextlib
import hashlib
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import Final

SYSTEM_USER: Final = "fundledger-postgres"
COPIES: Final = Path("/var/lib/fundledger")
_NEEDED: Final = ("bin/postgres", "bin/initdb", "lib", "share")


class NoSystemUser(Exception):
    """There is no system user to run Postgres; the message states the reason."""


def system_user() -> pwd.struct_passwd | None:
    """Return the system user, and create it if it is missing.

    Return None if this process is not root: then Postgres runs as the user of this process.
    Raises NoSystemUser.
    """
    if os.geteuid() != 0:
        return None
    found = system_user_if_any()
    if found is not None:
        return found
    command = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", SYSTEM_USER]
    try:
        subprocess.run(command, check=True, capture_output=True)  # noqa: S603 - fixed command
    except (OSError, subprocess.CalledProcessError) as error:
        # A concurrent `serve` may have created the user.
        found = system_user_if_any()
        if found is None:
            raise NoSystemUser(f"root cannot run Postgres, and {SYSTEM_USER} cannot be created ({error})") from None
        return found
    return pwd.getpwnam(SYSTEM_USER)


def system_user_if_any() -> pwd.struct_passwd | None:
    """Return the existing system user; None if there is none, or if this process is not root."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        return None


def reaches(user: pwd.struct_passwd | None, path: Path) -> bool:
    """Return whether owner and mode of all folders above `path` allow the user to traverse them."""
    if user is None:
        return True
    for folder in path.parents:
        found = folder.stat()
        needed = stat.S_IXUSR if found.st_uid == user.pw_uid else stat.S_IXOTH
        if not found.st_mode & needed:
            return False
    return True


class Reached:
    """Paths by which the system user opens directories, valid until `close`.

    `paths[i]` is the path to use for `directories[i]`. It is either the directory's own path, or a path through an open
    descriptor. Postgres must inherit all `descriptors`.
    """

    def __init__(self, user: pwd.struct_passwd | None, *directories: Path) -> None:
        self.paths: list[Path] = []
        self.descriptors: list[int] = []
        for directory in directories:
            if reaches(user, directory):
                self.paths.append(directory)
                continue
            flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            self.descriptors.append(os.open(directory, flags))
            self.paths.append(Path(f"/proc/self/fd/{self.descriptors[-1]}"))

    def close(self) -> None:
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors = []


def binaries_for(user: pwd.struct_passwd | None, home: Path) -> Path:
    """Return a `bin` folder with programs that the user can run, in the installation `home` or in a copy of it.
    Raises OSError if a copy is needed and cannot be made.
    """
    if reaches(user, home / "bin" / "postgres"):
        return home / "bin"
    found = (home / "bin" / "postgres").stat()
    mark = hashlib.sha256(f"2:{home}:{found.st_size}:{found.st_mtime_ns}".encode()).hexdigest()[:16]
    copy = COPIES / f"postgres-{mark}"
    bin_ = copy / home.parent.name / home.name / "bin"
    COPIES.mkdir(parents=True, exist_ok=True)
    copies = COPIES.lstat()
    if copies.st_uid == 0 and stat.S_ISDIR(copies.st_mode) and not copies.st_mode & stat.S_IXOTH:
        # The umask of `serve` is 077, but the system user must traverse this folder.
        COPIES.chmod(0o755)
    if not copy.exists():
        _copy(home, copy)
    for path in (COPIES, copy, bin_ / "postgres"):
        there = path.lstat()
        if there.st_uid != 0 or stat.S_ISLNK(there.st_mode) or there.st_mode & 0o022:
            raise PermissionError(1, f"{path} can be changed by users other than root")
    return bin_


def _copy(home: Path, copy: Path) -> None:
    """Copy the needed files of an installation, and the libraries next to its package. Relative paths are kept."""
    package = home.parent
    libraries = package.with_name(f"{package.name}.libs")
    needed = [home / name for name in _NEEDED] + ([libraries] if libraries.is_dir() else [])
    draft = Path(tempfile.mkdtemp(dir=copy.parent))
    try:
        for source in needed:
            target = draft / source.relative_to(package.parent)
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, symlinks=True)
            else:
                shutil.copy2(source, target)
        for path in (draft, *draft.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o644)
        with contextlib.suppress(FileExistsError):
            draft.rename(copy)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
