"""Rate-limit policies file of an installation: read at the start, watched while an HTTP worker serves."""

import asyncio
import logging
import os
import re
from pathlib import Path
from typing import Final

from fundledger.json_values import ID_PATTERN
from fundledger.ratelimit.quota.bucket import SPACE
from fundledger.ratelimit.quota.limiter import Limiter
from fundledger.ratelimit.quota.policies import BadPolicies, Policies, default_text, parse
from fundledger.ratelimit.quota.store import Store
from fundledger.ratelimit.stats import Limits
from fundledger.settings import PREFIX, BadSetting, Settings

LOOK_EVERY_S: Final = 0.3
TYPES_IGNORED: Final = "no longer used: the class of a voucher follows from its accounts; the table may be removed"
_MADE_AT_FIRST_START: Final = ("ledger-id", "postgres")
"""Files that a data directory has after its first start."""
_is_id = re.compile(ID_PATTERN).match
_log = logging.getLogger(__name__)


def policies_path(settings: Settings) -> Path:
    """Return the file of the setting, else `limits.toml` of the data directory."""
    return settings.ratelimit_file or settings.data_dir / "limits.toml"


def read_policies(settings: Settings) -> Policies:
    """Return the policies of the file, which is created if the data directory has none. Raises BadSetting."""
    path = policies_path(settings)
    try:
        if settings.ratelimit_file is None and not path.exists():
            _make(settings, path)
        text = path.read_text()
        policies = parse(text, shadow=settings.ratelimit == "shadow")
    except BadPolicies as bad:
        raise BadSetting(f"{path}: {bad}") from None
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise BadSetting(f"{PREFIX}RATELIMIT_FILE={str(path)!r}: {why}; accepted: a policies file") from None
    _save_accepted(settings, text)
    return policies


def _make(settings: Settings, path: Path) -> None:
    """Create the policies file from the limits last in force, if known, else from the default limits. Raises OSError.

    Logs a warning if the data directory was used before.
    """
    used_before = any((settings.data_dir / name).exists() for name in _MADE_AT_FIRST_START)
    text, source = _last_accepted(settings), _accepted_path(settings).name
    if text is None:
        text, source = default_text(), "the default limits"
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text)
    draft.replace(path)
    if used_before:
        extra = {"event": "limits_file_made", "version": parse(text).version, "source": source}
        _log.warning("%s was missing and has been created from %s: check its limits", path, source, extra=extra)


def _last_accepted(settings: Settings) -> str | None:
    try:
        text = _accepted_path(settings).read_text()
        parse(text)
    except (OSError, UnicodeDecodeError, BadPolicies):
        return None
    return text


def build_limiter(
    settings: Settings, redis_url: str, name: str, workers: int | None = None, space: str = SPACE
) -> Limiter | None:
    """Return the limiter of a worker, None if limits are off. Raises BadSetting.

    `name` identifies this worker among all workers of the store. `workers` of `space` are assumed to be alive at first.
    Does not connect: the store may be unreachable, for now or permanently.
    """
    if settings.ratelimit == "off" or not redis_url:
        return None
    counts = Limits()
    deadline_s = settings.ratelimit_deadline_ms / 1000
    store = Store(redis_url, name, counts, workers or settings.workers, deadline_s, space=space)
    try:
        policies = read_policies(settings)
    except BadSetting as bad:
        # A worker that is restarted while the file is invalid has the limits that the others have kept.
        try:
            policies = parse(_accepted_path(settings).read_text(), shadow=settings.ratelimit == "shadow")
        except (OSError, BadPolicies):
            raise bad from None
        counts.reload_failures += 1
        _log.error(
            "invalid policies file, the limits accepted last are used: %s", bad, extra={"event": "limits_invalid"}
        )
    if policies.types:
        _log.warning("[types] of the policies file: %s", TYPES_IGNORED, extra={"event": "limits_types_ignored"})
    return Limiter(policies, store, counts, shadow=settings.ratelimit == "shadow", space=space)


def _accepted_path(settings: Settings) -> Path:
    return settings.data_dir / "limits.accepted.toml"


def _save_accepted(settings: Settings, text: str) -> None:
    """Save the policies accepted last, for workers that start later. A failure to save is only logged."""
    mine = settings.data_dir / f"limits.accepted.{os.getpid()}"
    try:
        mine.write_text(text)
        mine.replace(_accepted_path(settings))
    except OSError as error:
        _log.warning("the accepted limits cannot be saved: %s", error, extra={"event": "limits_not_saved"})


async def watch_policies(settings: Settings, limiter: Limiter) -> None:
    """Load the policies within a second of each change of the file, permanently. Cancelling ends it.

    An invalid or missing file is counted and logged, and changes nothing.
    """
    path = policies_path(settings)
    # Not the current stamp: a change since the file was read must count.
    seen = (-1, 0, 0)
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        stamp = _stamp(path)
        if stamp == seen:
            continue
        seen = stamp
        try:
            text = path.read_text()
            policies = parse(text, shadow=settings.ratelimit == "shadow")
            _save_accepted(settings, text)
        except Exception as bad:
            # An error in the file must not end the other tasks of the limiter.
            limiter.counts.reload_failures += 1
            _log.error(
                "invalid policies file, the limits are unchanged: %s: %s", path, bad, extra={"event": "limits_invalid"}
            )
            continue
        if policies.version != limiter.policies.version:
            limiter.replace(policies)
            _log.warning("limits changed", extra={"event": "limits_changed", "version": policies.version})


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0, 0)
    return found.st_mtime_ns, found.st_size, found.st_ino
