"""Closed-loop load driver at full speed: wrk if it is installed, otherwise the project's own driver."""

import os
import re
import shutil
import subprocess

from benchmarks.closed_loop import closed_loop
from benchmarks.runs import BenchFault, Run
from benchmarks.traffic import Traffic

_MS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4, "h": 3.6e6}
_LATENCY = re.compile(r"^\s+Latency\s+\S+\s+\S+\s+([\d.]+)([a-z]+)", re.MULTILINE)
_PERCENTILE = re.compile(r"^\s+(50|99)%\s+([\d.]+)([a-z]+)", re.MULTILINE)
_ANSWERED = re.compile(r"^\s+(\d+) requests in ", re.MULTILINE)
_RATE = re.compile(r"^Requests/sec:\s+([\d.]+)", re.MULTILINE)
_SOCKET_ERRORS = re.compile(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)")
_STATUS_ERRORS = re.compile(r"Non-2xx or 3xx responses: (\d+)")


def full_speed(traffic: Traffic, connections: int, seconds: float, driver: str) -> Run:
    """Run a closed loop with the named driver, `wrk` or `own`. Raises BenchFault."""
    if driver == "wrk":
        return _wrk(traffic, connections, seconds)
    return closed_loop(traffic.port, traffic.requests(), connections, seconds, traffic.vouchers_each)


def choose_driver(asked: str) -> str:
    """Return the driver to use, `wrk` or `own`. Raises BenchFault if wrk is requested and not installed."""
    if asked == "own" or (asked == "auto" and shutil.which("wrk") is None):
        return "own"
    if shutil.which("wrk") is None:
        raise BenchFault("wrk is not installed: install it (Debian: wrk) or use --driver own")
    return "wrk"


def _wrk(traffic: Traffic, connections: int, seconds: float) -> Run:
    # Round, because wrk accepts only whole seconds.
    command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "30s", "--latency"]
    command += ["-s", str(traffic.script), f"http://127.0.0.1:{traffic.port}/"]
    done = subprocess.run(
        command, env={**os.environ, **traffic.environment()}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise BenchFault(f"wrk ended with {done.returncode}: {(done.stderr or done.stdout).strip()[-500:]}")
    return read_report(done.stdout, connections, traffic.vouchers_each)


def read_report(text: str, connections: int, vouchers_each: int = 1) -> Run:
    """Return the run that wrk reported. Raises BenchFault if the text is no report."""
    answered, rate = _ANSWERED.search(text), _RATE.search(text)
    if answered is None or rate is None:
        raise BenchFault(f"wrk printed no report: {text[-500:]}")
    broken = _SOCKET_ERRORS.search(text)
    refused = _STATUS_ERRORS.search(text)
    broken_count = sum(int(n) for n in broken.groups()) if broken else 0
    refused_count = int(refused[1]) if refused else 0
    percentiles = {share: float(value) * _MS[unit] for share, value, unit in _PERCENTILE.findall(text)}
    highest = _LATENCY.search(text)
    count = int(answered[1])
    return Run(
        "wrk",
        count / float(rate[1]) if float(rate[1]) else 1.0,
        count + broken_count,
        refused_count + broken_count,
        connections + refused_count + broken_count,
        p50_ms=percentiles.get("50", 0.0),
        p99_ms=percentiles.get("99", 0.0),
        max_ms=float(highest[1]) * _MS[highest[2]] if highest else 0.0,
        vouchers_each=vouchers_each,
    )
