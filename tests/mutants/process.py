"""Forked processes of a mutation run: waiting for them with a time-out."""

import contextlib
import os
import select
import signal


def wait(pid: int, timeout_s: float) -> int | None:
    """Wait for a process. Return its exit code, or None if it had to be killed after the time-out.

    The process leads a process group, which is killed with it.
    """
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
