"""The system user that Postgres runs as when `serve` is root, and how it reaches what it needs.

No mode of a folder is changed for it. Where the folders above the data directory are private, Postgres is given open
directories, and reaches them through `/proc/self/fd`. Where the folders above its binaries are private, they are copied
below `/var/lib/fundledger`.
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
    """Root has no user to run Postgres as; the message says why."""


def system_user() -> pwd.struct_passwd | None:
    """None for an ordinary user, which runs Postgres as itself. As root: a system user, made when it is missing.

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
        # Another `serve` may have made it meanwhile.
        found = system_user_if_any()
        if found is None:
            raise NoSystemUser(f"root cannot run Postgres, and {SYSTEM_USER} cannot be made ({error})") from None
        return found
    return pwd.getpwnam(SYSTEM_USER)


def system_user_if_any() -> pwd.struct_passwd | None:
    """As root, the system user, if it was made before."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        return None


def reaches(user: pwd.struct_passwd | None, path: Path) -> bool:
    """Whether the user may pass through all folders above `path`, by their owner and mode."""
    if user is None:
        return True
    for folder in path.parents:
        found = folder.stat()
        needed = stat.S_IXUSR if found.st_uid == user.pw_uid else stat.S_IXOTH
        if not found.st_mode & needed:
            return False
    return True


class Reached:
    """Directories under the paths that the system user opens them by. From construction to `close`.

    `paths[i]` belongs to `directories[i]`: the same path, or one through an open descriptor, which the process has to
    inherit (`descriptors`).
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
    """The `bin` folder of an installation of Postgres in `home` that the user can run: its own, or that of a copy.

    Raises OSError when a copy is needed and cannot be made.
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
        # The umask of `serve` is 077, and the user that Postgres runs as has to pass through this folder.
        COPIES.chmod(0o755)
    if not copy.exists():
        _copy(home, copy)
    for path in (COPIES, copy, bin_ / "postgres"):
        there = path.lstat()
        if there.st_uid != 0 or stat.S_ISLNK(there.st_mode) or there.st_mode & 0o022:
            raise PermissionError(1, f"{path} can be changed by others than root")
    return bin_


def _copy(home: Path, copy: Path) -> None:
    """Copy what Postgres needs of an installation, and the libraries beside its package, to where it looks for them."""
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
