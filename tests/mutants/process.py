"""Waits for forked processes."""

import contextlib
import os
import select
import signal


def wait(pid: int, timeout_s: float) -> int | None:
    """Return the exit code, None if the process had to be killed. It leads a process group, which ends with it."""
    poll = select.poll()
    process = os.pidfd_open(pid)
    try:
        poll.register(process, select.POLLIN)
        ended = bool(poll.poll(timeout_s * 1000))
    finally:
        os.close(process)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)  # also the processes that it has started
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status) if ended else None
