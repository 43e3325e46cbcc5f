"""Description of the environment of a benchmark: machine, versions, disk speed, and processor use of other programs."""

import os
import platform
import resource
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.runs import percentile

_SYNCS = 200


def facts(data_root: Path) -> dict[str, Any]:
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": _processor(),
        "memory_mb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // (1 << 20),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "wrk": _first_line("wrk", "--version"),
        "load_average_1_min": round(os.getloadavg()[0], 2),
        "fdatasync_p50_us": _fdatasync_us(data_root),
        "commit": _commit(),
    }


class Processors:
    """Processor time that was used since the construction of this object."""

    def __init__(self) -> None:
        self._ours = _ours_s()
        self._busy, self._total = _processor_s()

    def share_of_others(self) -> float:
        """Return the share of processor time used by other programs."""
        return max(0.0, self.others_s() / max(_processor_s()[1] - self._total, 1e-9))

    def others_s(self) -> float:
        """Return the processor seconds of all processes except this process and its ended children."""
        return (_processor_s()[0] - self._busy) - (_ours_s() - self._ours)


def _ours_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(of.ru_utime + of.ru_stime for of in used)


def _processor_s() -> tuple[float, float]:
    """Return the `(busy, total)` seconds of all processors together. Time stolen by a hypervisor counts as busy."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    idle = fields[3] + fields[4]
    ticks = os.sysconf("SC_CLK_TCK")
    return (sum(fields) - idle) / ticks, sum(fields) / ticks


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _fdatasync_us(data_root: Path) -> float:
    """Return the median time in us of an 8 kB write with fdatasync. Below about 20 us the disk is not durable."""
    took = []
    with tempfile.TemporaryFile(dir=data_root) as file:
        for _ in range(_SYNCS):
            started = time.perf_counter_ns()
            os.pwrite(file.fileno(), bytes(8192), 0)
            os.fdatasync(file.fileno())
            took.append((time.perf_counter_ns() - started) / 1e3)
    return round(percentile(sorted(took), 0.5), 1)


def _first_line(*command: str) -> str | None:
    if shutil.which(command[0]) is None:
        return None
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = (done.stdout or done.stderr).splitlines()
    return lines[0].partition(" Copyright")[0] if lines else None


def _commit() -> str | None:
    """Return the commit of this checkout, with `+` if files were changed. None if there is no checkout."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+" if changed.strip() else "")
