r"""Locust load test: callers of each class send requests at a steady pace, and honour Retry-After.

Run it beside `make serve`:

    .venv/bin/locust -f benchmarks/locustfile.py --headless -H http://127.0.0.1:8080 \
        --users 50 --spawn-rate 25 --run-time 1m --html benchmarks-out/locust.html

or run `make loadtest`. `--token-file` is the file of the API token, `--merchants` the number of merchants (the share of
the n-th merchant is proportional to n^-1.1), `--pace` the operations per second of one caller. `SHAPE=steps` raises the
number of callers from `--users` to 8 times `--users`, in four steps. `SHAPE=spike` raises the number of callers to 5
times `--users` during the middle third.

Every attempt of an operation has the same id. A response 429 or 503 with Retry-After is not a failure: the results
count it in a separate row, such as `POST /v1/vouchers [429]`. The caller waits for the time in Retry-After, and sends
the same request again (row `[again]`). If the caller is alone on its account (`Alone`), this retry must be admitted. A
response 429 or 503 without Retry-After is a failure. At its end the test prints percentiles in tenths of a millisecond,
and the admitted requests by policy.

In spite of the pace, Locust is a closed loop: a caller that waits for a response sends nothing. So a stall of the
service affects at most one request of each caller. For the latencies of independent callers (an open loop), use
`fundledger bench --only overload`.
"""

import http.client
import itertools
import json
import os
import random
import re
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import locust.stats
from locust import FastHttpUser, LoadTestShape, constant_pacing, constant_throughput, events, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.runners import WorkerRunner

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.watch import series

BANK: Final = "bank:locust"
FUNDS: Final = 10**12
ATTEMPTS: Final = 4
BATCH_OF: Final = 10
ALONE_TRIES: Final = 200
ALONE_EVERY_S: Final = 5.0
RETRY_LATER: Final = (429, 503)
SHARED: Final = ("caller", "class", "global")
"""Policies whose keys a caller shares with other callers, even if no other caller uses its account."""
POLICY: Final = re.compile(r'"([^"]+)";q=(\d+)(?:;w=(\d+))?')
DECISIONS: Final = "fundledger_ratelimit_decisions_total"
LIMITS: Final = "fundledger_ratelimit_limit_per_second"
SHAPE: Final = os.environ.get("SHAPE", "")


class Seen:
    """Record of the responses that this process received."""

    def __init__(self) -> None:
        self.policies: dict[str, tuple[int, int]] = {}  # from headers: (quota, window in seconds)
        self.admitted: Counter[int] = Counter()  # by merchant
        self.denied: Counter[str] = Counter()  # by the policy that denied
        self.alone: Counter[bool] = Counter()  # retries of `Alone` callers: admitted or not
        self.metrics: dict[str, float] = {}
        self._headers: set[str] = set()

    def header(self, text: str | None) -> None:
        if text and text not in self._headers:
            self._headers.add(text)
            self.policies |= {name: (int(q), int(w or 1)) for name, q, w in POLICY.findall(text)}


seen = Seen()


def finer(response_time: float, coarse: Callable[[float], int] = locust.stats.bucket_response_time) -> float:
    """Round a response time in ms: below 10 ms, where most are, to tenths; from 10 ms, to Locust's own steps."""
    return round(response_time, 1) if response_time < 10 else coarse(response_time)


locust.stats.bucket_response_time = finer  # type: ignore[assignment]


@events.init_command_line_parser.add_listener
def _arguments(parser: LocustArgumentParser) -> None:
    parser.add_argument(
        "--token-file", type=str, default="data/dev-token", help="file of the service's token (data/dev-token)"
    )
    parser.add_argument("--merchants", type=int, default=200, help="number of merchants (200)")
    parser.add_argument("--pace", type=float, default=10.0, help="operations per second of one caller (10)")


def account(number: int) -> str:
    return f"locust:{number}:available"


def voucher(type_: str, number: int, amount: int = 100) -> dict[str, Any]:
    """Return the body of a voucher with a new id."""
    theirs, ours = ("credit", "debit") if type_ == "pay" else ("debit", "credit")
    entries = [(BANK, ours), (account(number), theirs)]
    return {
        "id": str(uuid.uuid4()),
        "type": type_,
        "entries": [{"account": name, "side": side, "amount": amount} for name, side in entries],
    }


class Plain:
    """Client for requests that are not part of the load: accounts, funds, metrics."""

    def __init__(self, environment: Environment) -> None:
        host = urlsplit(environment.host or "")
        assert host.hostname
        self._connection = http.client.HTTPConnection(host.hostname, host.port, timeout=30)
        self._headers = headers_of(environment)

    def ask(self, method: str, path: str, body: Any = None) -> bytes:
        sent = None if body is None else json.dumps(body)
        self._connection.request(method, path, sent, self._headers)
        answer = self._connection.getresponse()
        told = answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {told[:200]!r}")
        return told

    def open(self, number: int) -> None:
        """Open an account unless it exists, and credit the account with more than the test debits."""
        body = {"id": account(number), "owner": f"merchant:locust-{number}", "type": "merchant_available"}
        self.ask("POST", "/v1/accounts", {**body, "currency": "CNY"})
        self.ask("POST", "/v1/vouchers", voucher("pay", number, FUNDS))

    def metrics(self) -> dict[str, float]:
        return series(self.ask("GET", "/metrics").decode(), (DECISIONS, LIMITS))


def headers_of(environment: Environment) -> dict[str, str]:
    assert environment.parsed_options is not None
    token = Path(environment.parsed_options.token_file).read_text().strip()
    return {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}


@events.test_start.add_listener
def _prepare(environment: Environment, **_: Any) -> None:
    if isinstance(environment.runner, WorkerRunner):
        return
    assert environment.parsed_options is not None
    plain = Plain(environment)
    plain.ask("POST", "/v1/accounts", {"id": BANK, "owner": "platform", "type": "bank", "currency": "CNY"})
    for number in range(1, environment.parsed_options.merchants + 1):
        plain.open(number)
    seen.metrics = plain.metrics()


class Caller(FastHttpUser):
    """One caller. `ask` sends the request of an operation again until there is an outcome."""

    abstract = True
    network_timeout = 30.0
    connection_timeout = 10.0

    def on_start(self) -> None:
        options = self.environment.parsed_options
        assert options is not None
        paced = constant_throughput(options.pace)
        self.wait_time = lambda: paced(self)  # type: ignore[method-assign]
        self.merchants = self._zipf(options.merchants)
        self.headers = headers_of(self.environment)

    def _zipf(self, count: int) -> Iterator[int]:
        cumulative = list(accumulate(number**-1.1 for number in range(1, count + 1)))
        while True:
            yield from random.choices(range(1, count + 1), cum_weights=cumulative, k=100)

    def once(
        self, method: str, path: str, name: str, number: int, body: Any = None, row: str | None = None
    ) -> tuple[int, float, str]:
        """Send a request once. Return `(status, seconds until the next attempt, policy that denied)`."""
        sent = None if body is None else json.dumps(body)
        told = self.client.request(
            method, path, name=row or name, data=sent, headers=self.headers, catch_response=True, allow_redirects=False
        )
        with told as answer:
            status, headers = answer.status_code, answer.headers or {}
            seen.header(headers.get("RateLimit-Policy"))
            if status in RETRY_LATER:
                answer.request_meta["name"] = f"{name} [{status}]"
                wait = headers.get("Retry-After") or ""
                policy = (headers.get("X-Limit-Decision") or "?").partition(";")[0]
                seen.denied[policy] += status == 429
                if wait.isdigit() and int(wait) >= 1:
                    answer.success()
                else:
                    answer.failure(f"{status} with Retry-After {wait!r}")
                return status, float(wait) if wait.isdigit() else 1.0, policy
            if 200 <= status < 300:
                seen.admitted[number] += 1
                answer.success()
            else:
                answer.failure(f"{status} {(answer.text or '')[:200]}" if status else f"no response: {answer.error}")
            return status, 0.0, ""

    def ask(self, method: str, path: str, name: str, number: int, body: Any = None) -> None:
        """Send a request until the response is neither 429 nor 503, at most ATTEMPTS times."""
        for attempt in range(ATTEMPTS):
            row = f"{name} [again]" if attempt else name
            status, wait_s, _ = self.once(method, path, name, number, body, row)
            if status not in RETRY_LATER:
                return
            time.sleep(wait_s)

    def post(self, type_: str) -> None:
        number = next(self.merchants)
        self.ask("POST", "/v1/vouchers", f"POST /v1/vouchers {type_}", number, voucher(type_, number))


class Payer(Caller):
    weight = 50

    @task
    def pay(self) -> None:
        self.post("pay")


class Refunder(Caller):
    weight = 5

    @task
    def refund(self) -> None:
        self.post("refund")


class Withdrawer(Caller):
    weight = 5

    @task
    def withdraw(self) -> None:
        self.post("withdraw")


class Reader(Caller):
    weight = 25

    @task
    def read(self) -> None:
        number = next(self.merchants)
        self.ask("GET", f"/v1/accounts/{account(number)}", "GET /v1/accounts/{id}", number)


class Lister(Caller):
    weight = 10

    @task
    def list_entries(self) -> None:
        number = next(self.merchants)
        path = f"/v1/accounts/{account(number)}/entries?limit=20"
        self.ask("GET", path, "GET /v1/accounts/{id}/entries", number)


class Batcher(Caller):
    weight = 5

    @task
    def post_batch(self) -> None:
        numbers = [next(self.merchants) for _ in range(BATCH_OF)]
        body = {"vouchers": [voucher("pay", number) for number in numbers]}
        self.ask("POST", "/v1/vouchers/batch", "POST /v1/vouchers/batch", numbers[0], body)


class Alone(Caller):
    """Caller with an account of its own. If the caller waits for Retry-After, its retry must be admitted."""

    fixed_count = 1
    numbers = itertools.count(1_000_000 + os.getpid() % 1000 * 1000)

    def on_start(self) -> None:
        super().on_start()
        paced = constant_pacing(ALONE_EVERY_S)
        self.wait_time = lambda: paced(self)  # type: ignore[method-assign]
        self.number = next(self.numbers)
        Plain(self.environment).open(self.number)

    @task
    def ask_until_denied(self) -> None:
        name = "POST /v1/vouchers alone"
        for _ in range(ALONE_TRIES):
            body = voucher("withdraw", self.number)
            status, wait_s, policy = self.once("POST", "/v1/vouchers", name, self.number, body)
            if status == 429 and policy not in SHARED:
                break
            time.sleep(wait_s)
        else:
            return
        time.sleep(wait_s)
        status, _, policy = self.once("POST", "/v1/vouchers", name, self.number, body, f"{name} [again]")
        if status == 429 and policy in SHARED:
            return
        seen.alone[status != 429] += 1
        if status == 429:
            late = RuntimeError(f"denied by {policy} after its Retry-After of {wait_s:g} s")
            events.request.fire(
                request_type="POST",
                name=f"{name} [again]",
                response_time=0,
                response_length=0,
                exception=late,
                context={},
            )


class Shape(LoadTestShape):
    """Load shape: a sequence of multiples of `--users`. Each multiple lasts for an equal part of `--run-time`."""

    abstract = True
    use_common_options = True
    factors: tuple[float, ...] = (1.0,)

    def tick(self) -> tuple[int, float] | None:
        assert self.runner is not None
        options = self.runner.environment.parsed_options
        assert options is not None
        base, total_s = options.num_users or 50, float(options.run_time or 60)
        part = int(self.get_run_time() / total_s * len(self.factors))
        if part >= len(self.factors):
            return None
        users = max(1, round(base * self.factors[part]))
        return users, float(users)


class Steps(Shape):
    abstract = SHAPE != "steps"
    factors = (1, 2, 4, 8)


class Spike(Shape):
    abstract = SHAPE != "spike"
    factors = (1, 5, 1)


@events.test_stop.add_listener
def _tell(environment: Environment, **_: Any) -> None:
    if isinstance(environment.runner, WorkerRunner):
        return
    lines = ["", f"{'row':44} {'count':>8} {'p50 ms':>8} {'p99 ms':>8} {'p99.9 ms':>8}  failures"]
    for entry in sorted(environment.stats.entries.values(), key=lambda entry: entry.name):
        shares = (entry.get_response_time_percentile(share) for share in (0.5, 0.99, 0.999))
        times = " ".join(f"{float(ms or 0):8.1f}" for ms in shares)
        lines.append(f"{entry.name:44} {entry.num_requests:8} {times}  {entry.num_failures}")
    lines += [f"{of.occurrences} x {of.name}: {of.error}" for of in environment.stats.errors.values()]
    print("\n".join([*lines, *_policies(environment)]), flush=True)


def _policies(environment: Environment) -> list[str]:
    total = environment.stats.total
    seconds = max(1.0, (total.last_request_timestamp or 0.0) - total.start_time)
    now = Plain(environment).metrics()
    decided: dict[str, Counter[str]] = {}
    for name, value in now.items():
        if name.startswith(DECISIONS):
            labels = dict(re.findall(r'(\w+)="([^"]*)"', name))
            of = decided.setdefault(labels.get("policy", "?"), Counter())
            of[labels.get("decision", "?")] += round(value - seen.metrics.get(name, 0.0))
    if not decided and not seen.policies and not seen.denied:
        return ["", "no policy: the service neither counts decisions nor sends RateLimit-Policy"]
    lines = ["", f"{'policy':16} {'limit of one key':>18} {'admitted':>10} {'a second':>10} {'denied':>8}  would deny"]
    for policy in sorted({*decided, *seen.policies}):
        of = decided.get(policy, Counter())
        quota = seen.policies.get(policy)
        rate = now.get(f'{LIMITS}{{policy="{policy}"}}')
        limit = f"{quota[0]} in {quota[1]} s" if quota else "-" if rate is None else f"{rate:g}/s"
        counts = f"{of['allow']:10} {of['allow'] / seconds:10.1f} {of['deny']:8}  {of['shadow_deny']}"
        lines.append(f"{policy:16} {limit:>18} {counts}")
    busiest = ", ".join(f"{n} of {account(m)}, {n / seconds:.1f}/s" for m, n in seen.admitted.most_common(3))
    retried = sum(seen.alone.values())
    return [
        *lines,
        f"most admitted: {busiest or 'nothing'}",
        f"limited (429), by policy: {dict(seen.denied) or 'none'}",
        f"retried after Retry-After, alone: {seen.alone[True]} of {retried} admitted",
    ]
