"""Diagnosis of a failed start of the embedded Postgres: the reason from its log, and a remedy."""

import os
import pwd
import re
from pathlib import Path
from typing import Final

_LINE: Final = re.compile(r"(?:^|\s)((?:FATAL|PANIC|ERROR): .*|postgres: .*)$")
_TAIL: Final = 64 * 1024
_PASSES: Final = re.compile(
    r"pre-existing shared memory block|lock file \".*\" already exists|system is (starting|shutting|in recovery)"
    r"|not (yet|currently) accepting connections|terminating connection|crash of another server process"
)
_ADVICE: Final = (
    (r"wrong ownership|[Pp]ermission denied", "check the owner of the files of the data directory"),
    (r"invalid permissions", "chmod 0700 {home}"),
    (
        r"files are incompatible with server",
        "{home} was made by Postgres {made}: use that version, or restore a backup",
    ),
    (
        r"checkpoint record|pg_control|backup_label|WAL|recovery ended|invalid page|PG_VERSION",
        "restore {home} from a backup",
    ),
    (r"No space left", "free disk space"),
    (
        r"shared memory|[Cc]annot allocate memory|out of memory|semaphore",
        "provide more memory, or reduce FUNDLEDGER_POSTGRES_MEMORY_MB",
    ),
    (r"Unix-domain socket|socket|\.s\.PGSQL", "check for another process in {pg}, then remove that folder"),
    (r"configuration|parameter", "correct {home}/postgresql.conf and {home}/postgresql.auto.conf"),
    (r"[Rr]ead-only file system|[Ii]nput/output error", "check the disk"),
)


def size_of(log: Path) -> int:
    """Return the current size of the log, 0 if there is none."""
    try:
        return log.stat().st_size
    except OSError:
        return 0


def last_fatal(log: Path, since: int) -> str:
    """Return the last FATAL, PANIC or ERROR line logged after offset `since`, empty if there is none.

    A log shorter than `since` was truncated meanwhile, and is read from its start.
    """
    try:
        with log.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            begin = since if since <= end else 0
            file.seek(max(begin, end - _TAIL))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    found: list[str] = []
    for line in lines:
        match = _LINE.search(line)
        if match is not None:
            found.append(match.group(1))
        elif found and found[-1].startswith("postgres: ") and not line[:4].isdigit():
            # Messages printed before logging starts span several lines.
            found[-1] += " " + line
    serious = [line for line in found if not _PASSES.search(line)]
    return " ".join((serious or found or [""])[-1].split())


def passes(reason: str) -> bool:
    """Return whether the cause of a failed start may disappear, so that a retry may succeed.

    An example: processes of a killed server hold the shared memory of that server until they end.
    """
    return _PASSES.search(reason) is not None


def advice(reason: str, data_dir: Path, log: Path) -> str:
    """Return the remedy for the reason of a failed start."""
    home = data_dir / "postgres"
    try:
        made = (home / "PG_VERSION").read_text().strip()
    except OSError:
        made = "another version"
    for pattern, text in _ADVICE:
        if re.search(pattern, reason):
            return text.format(home=home, pg=data_dir / "pg", made=made)
    return f"see {log}"


def foreign_file(home: Path, owner: int) -> str | None:
    """Return the first file at or below `home` owned by another user, with the remedy; else None. Follows no link."""
    for path in (home, *_below(home)):
        try:
            found = path.lstat().st_uid
        except FileNotFoundError:
            continue
        except OSError as error:
            return f"{path}: {error.strerror}: as root, chown -R {name_of(owner)} {home}"
        if found != owner:
            return (
                f"{path} belongs to {name_of(found)}, but Postgres runs as {name_of(owner)}: as root, "
                f"chown -R {name_of(owner)} {home}"
            )
    return None


def name_of(uid: int) -> str:
    """Return the name of a user, or its number if the user has no name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _below(home: Path) -> list[Path]:
    found: list[Path] = []
    for folder, folders, files in os.walk(home):
        found += [Path(folder, name) for name in (*folders, *files)]
    return found
