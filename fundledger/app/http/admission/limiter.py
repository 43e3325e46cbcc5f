"""Rate limiter for the admission of HTTP requests: construction, and reloading of its policies file while serving.

These functions are not in `policies.py`, because the supervisor imports `policies.py` and must not load the limiter and
its Redis client.
"""

import asyncio
import logging
from pathlib import Path
from typing import Final

from fundledger.app.http.admission.policies import (
    TYPES_IGNORED,
    accepted_path,
    policies_path,
    read_policies,
    save_accepted,
)
from fundledger.ratelimit.quota.bucket import SPACE
from fundledger.ratelimit.quota.limiter import Limiter
from fundledger.ratelimit.quota.policies import BadPolicies, parse
from fundledger.ratelimit.quota.store import Store
from fundledger.ratelimit.stats import Limits
from fundledger.settings import BadSetting, Settings

LOOK_EVERY_S: Final = 0.3
_log = logging.getLogger(__name__)


def build_limiter(
    settings: Settings, redis_url: str, name: str, workers: int | None = None, space: str = SPACE
) -> Limiter | None:
    """Return the limiter of a worker, None if limits are off or `redis_url` is empty. Raises BadSetting.

    `name` identifies this worker among all workers that use the store. `space`: prefix of the buckets. `workers`: how
    many workers with this prefix are assumed to be alive at first. Does not connect, so the store need not be
    reachable.
    """
    if settings.ratelimit == "off" or not redis_url:
        return None
    counts = Limits()
    deadline_s = settings.ratelimit_deadline_ms / 1000
    store = Store(redis_url, name, counts, workers or settings.workers, deadline_s, space=space)
    try:
        policies = read_policies(settings)
    except BadSetting as bad:
        # A worker that is restarted while the file is invalid uses the limits that the other workers still use.
        try:
            policies = parse(accepted_path(settings).read_text(), shadow=settings.ratelimit == "shadow")
        except (OSError, BadPolicies):
            raise bad from None
        counts.reload_failures += 1
        _log.error(
            "invalid policies file, the limits accepted last are used: %s", bad, extra={"event": "limits_invalid"}
        )
    if policies.types:
        _log.warning("[types] of the policies file: %s", TYPES_IGNORED, extra={"event": "limits_types_ignored"})
    return Limiter(policies, store, counts, shadow=settings.ratelimit == "shadow", space=space)


async def watch_policies(settings: Settings, limiter: Limiter) -> None:
    """Watch the policies file until cancelled. When the file has changed, load its policies within a second.

    If the file is invalid or missing, the failure is counted and logged, and the policies stay unchanged.
    """
    path = policies_path(settings)
    # No file has this stamp, so the first round reads the file: the file may have changed since `build_limiter`.
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
            save_accepted(settings, text)
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
