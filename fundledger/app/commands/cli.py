"""Parser and entry point of the `fundledger` command line."""

import argparse
import asyncio
import importlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import fundledger
from fundledger.app.commands.payout_options import add_payouts
from fundledger.app.console.terminal import complain, open_standard_files
from fundledger.build import this_build, version_line
from fundledger.security.process_memory import forbid_core_dumps, hide_memory
from fundledger.settings import BadSetting, Settings, read_settings, sources


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a subcommand and exit: 0 on success, 1 on findings, 2 on a bad setting or a missing resource."""
    from fundledger.app.host.preflight import CannotServe

    open_standard_files()
    forbid_core_dumps()
    options, rest = _parser().parse_known_args(arguments)
    if rest and options.run is not _bench:
        _parser().parse_args(arguments)
    options.rest = rest
    try:
        sys.exit(options.run(options))
    except (BadSetting, CannotServe) as error:
        complain(f"fundledger: {error}")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def _settings(options: argparse.Namespace) -> Settings:
    names = ("data_dir", "workers", "port", "fund_port", "profile")
    settings = read_settings(**{name: getattr(options, name, None) for name in names})
    try:
        return settings.model_copy(update={"data_dir": settings.data_dir.resolve()})
    except (OSError, RuntimeError) as error:
        raise BadSetting(f"FUNDLEDGER_DATA_DIR={str(settings.data_dir)!r}: {error}") from None


def _serve(options: argparse.Namespace) -> int:
    from fundledger.app.console.logs import configure_logs
    from fundledger.app.host.supervisor import Supervisor

    settings = _settings(options)
    if settings.profile == "prod":
        raise BadSetting(
            "FUNDLEDGER_PROFILE='prod': requires TLS and signed requests, which this version lacks; accepted: dev"
        )
    configure_logs(settings.log_level, {}, settings.log_format)
    # Files created from here on, also by child processes, are accessible only to this user.
    os.umask(0o077)
    hide_memory()
    asyncio.run(Supervisor(settings).run())
    return 0


def _migrate(options: argparse.Namespace) -> int:
    from fundledger.app.commands.books import run_migrate

    return asyncio.run(run_migrate(_settings(options)))


def _verify(options: argparse.Namespace) -> int:
    from fundledger.app.commands.books import run_verify

    return asyncio.run(run_verify(lambda: _settings(options), options.json))


def _doctor(options: argparse.Namespace) -> int:
    from fundledger.app.commands.doctor import run_doctor

    return asyncio.run(run_doctor(_settings(options), as_json=options.json))


def _demo(options: argparse.Namespace) -> int:
    from fundledger.app.commands.demo.run import run_demo

    return asyncio.run(run_demo(_settings(options), options.seconds, options.rate, options.keep))


def _bench(options: argparse.Namespace) -> int:
    clone = Path(fundledger.__file__).parents[1]
    if not (clone / "benchmarks" / "bench.py").is_file():
        complain("fundledger bench: the package does not contain the benchmarks; run it from a clone of the repository")
        return 2
    sys.path.insert(0, str(clone))
    return int(importlib.import_module("benchmarks.bench").main(options.rest))


def _hot_list(options: argparse.Namespace) -> int:
    from fundledger.app.commands.hot import run_list

    return asyncio.run(run_list(_settings(options), as_json=options.json))


def _hot_split(options: argparse.Namespace) -> int:
    from fundledger.app.commands.hot import run_resplit

    settings = _settings(options)
    slots = max(2, settings.workers) if options.slots is None else options.slots
    return asyncio.run(run_resplit(settings, options.account, slots, options.reason))


def _hot_merge(options: argparse.Namespace) -> int:
    from fundledger.app.commands.hot import run_resplit

    return asyncio.run(run_resplit(_settings(options), options.account, 1, options.reason))


def _check_limits(options: argparse.Namespace) -> int:
    from fundledger.app.commands.check_limits import check_policies

    return check_policies(options.file, _settings(options).workers)


def _bench_limits(options: argparse.Namespace) -> int:
    from fundledger.app.commands.limits_bench import run_bench

    return run_bench(_settings(options))


def _show_settings(options: argparse.Namespace) -> int:
    rows = sources(_settings(options))
    if options.json:
        print(json.dumps([{"name": name, "value": value, "from": where} for name, value, where in rows]))
        return 0
    width = max(len(name) for name, _, _ in rows)
    for name, value, where in rows:
        print(f"{name:{width}}  {value:30}  {where}")
    return 0


def _tools(options: argparse.Namespace) -> int:
    from fundledger.app.host.postgres.server import PostgresFault, installed

    del options
    try:
        print(installed() / "bin")
    except PostgresFault as fault:
        raise BadSetting(str(fault)) from None
    return 0


def _jobs_list(options: argparse.Namespace) -> int:
    from fundledger.app.commands.jobs import run_list

    return asyncio.run(run_list(_settings(options), as_json=options.json))


def _jobs_run(options: argparse.Namespace) -> int:
    from fundledger.app.commands.jobs import run_job

    return asyncio.run(run_job(_settings(options), options.name))


def _orders_stuck(options: argparse.Namespace) -> int:
    from fundledger.app.commands.orders import run_stuck

    return asyncio.run(run_stuck(_settings(options), as_json=options.json))


def _add_orders(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    help_ = "list stuck orders"
    orders = commands.add_parser("orders", help=help_, description="List the orders that need an operator.")
    subcommands = orders.add_subparsers(required=True, metavar="COMMAND")
    stuck = subcommands.add_parser(
        "stuck", help="list the stuck orders of all merchants with age and reason; exit status 1 if there is one"
    )
    stuck.set_defaults(run=_orders_stuck)
    stuck.add_argument("--json", action="store_true", help="print JSON")
    stuck.add_argument("--data", dest="data_dir", metavar="DIR", help="data directory (default ./data)")


def _persons_add(options: argparse.Namespace) -> int:
    from fundledger.app.commands.persons import run_add

    return asyncio.run(run_add(_settings(options), options.name, options.role))


def _persons_list(options: argparse.Namespace) -> int:
    from fundledger.app.commands.persons import run_list

    return asyncio.run(run_list(_settings(options), as_json=options.json))


def _persons_disable(options: argparse.Namespace) -> int:
    from fundledger.app.commands.persons import run_disable

    return asyncio.run(run_disable(_settings(options), options.name))


def _persons_rotate(options: argparse.Namespace) -> int:
    from fundledger.app.commands.persons import run_rotate

    return asyncio.run(run_rotate(_settings(options), options.name))


def _add_persons(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    help_ = "add, list, rotate and disable persons"
    persons = commands.add_parser(
        "persons",
        help=help_,
        description="Manage persons and their tokens. Running services use the new data within two seconds.",
    )
    subcommands = persons.add_subparsers(required=True, metavar="COMMAND")
    adding = subcommands.add_parser("add", help="add a person and print its token, which is not stored")
    adding.set_defaults(run=_persons_add)
    roles = ("maker", "checker", "operator", "auditor")
    adding.add_argument("--role", action="append", choices=roles, required=True, help="may be repeated")
    listing = subcommands.add_parser("list", help="list all persons with their roles, also disabled ones")
    listing.set_defaults(run=_persons_list)
    listing.add_argument("--json", action="store_true", help="print JSON")
    disabling = subcommands.add_parser("disable", help="disable a person permanently; its history is kept")
    disabling.set_defaults(run=_persons_disable)
    rotating = subcommands.add_parser("rotate", help="give a person a new token and print it; the old one is refused")
    rotating.set_defaults(run=_persons_rotate)
    for with_name in (adding, disabling, rotating):
        with_name.add_argument("name", metavar="NAME")
    for with_data in (adding, listing, disabling, rotating):
        with_data.add_argument("--data", dest="data_dir", metavar="DIR", help="data directory (default ./data)")


def _calendar_show(options: argparse.Namespace) -> int:
    from fundledger.app.commands.calendars import run_show

    return asyncio.run(run_show(_settings(options), as_json=options.json))


def _calendar_adopt(options: argparse.Namespace) -> int:
    from fundledger.app.commands.calendars import run_adopt

    return asyncio.run(run_adopt(_settings(options)))


def _add_calendar(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    help_ = "show and change the calendar of the fund service"
    calendar = commands.add_parser(
        "calendar", help=help_, description="Show the calendar of the fund service, or change it from a later day on."
    )
    subcommands = calendar.add_subparsers(required=True, metavar="COMMAND")
    showing = subcommands.add_parser(
        "show", help="show the recorded calendars; exit status 1 if the account service has another one"
    )
    showing.set_defaults(run=_calendar_show)
    showing.add_argument("--json", action="store_true", help="print JSON")
    adopting = subcommands.add_parser("adopt", help="record the calendar of the account service, from a later day on")
    adopting.set_defaults(run=_calendar_adopt)
    for with_data in (showing, adopting):
        with_data.add_argument("--data", dest="data_dir", metavar="DIR", help="data directory (default ./data)")


def _add_jobs(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    help_ = "list and run background jobs"
    jobs = commands.add_parser("jobs", help=help_, description="List background jobs, or run one manually.")
    subcommands = jobs.add_subparsers(required=True, metavar="COMMAND")
    listing = subcommands.add_parser(
        "list", help="list background jobs with lease owner, lag and failures; exit status 1 if one is overdue"
    )
    listing.set_defaults(run=_jobs_list)
    listing.add_argument("--json", action="store_true", help="print JSON")
    running = subcommands.add_parser(
        "run", help="run a job once; exit status 1 if the run fails or another process holds the lease"
    )
    running.set_defaults(run=_jobs_run)
    running.add_argument("name", metavar="NAME")
    running.add_argument("--once", action="store_true", required=True, help="run the job one time (required)")
    for with_data in (listing, running):
        with_data.add_argument("--data", dest="data_dir", metavar="DIR", help="data directory (default ./data)")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fundledger", description="A payment fund account system.")
    parser.add_argument("--version", action="version", version=version_line(this_build()))
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: object, help_: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=help_, description=help_)
        added.set_defaults(run=run)
        return added

    serve = command("serve", _serve, "start both services; Ctrl-C drains and stops them")
    serve.add_argument("--workers", type=int, help="number of worker processes of the account service")
    serve.add_argument("--port", type=int, help="port of the account service")
    serve.add_argument("--fund-port", type=int, help="port of the fund service")
    serve.add_argument("--profile", choices=["dev", "prod"])
    migrate = command("migrate", _migrate, "migrate the schemas of both databases")
    verify = command("verify", _verify, "verify the books of both services")
    verify.epilog = (
        "Exit status: 0 the books are right, 1 there are findings, 2 the configuration names no ledger, 3 the "
        "verification could not be completed (a database or a key is missing). With --json, standard output is one "
        "JSON object in each case."
    )
    verify.add_argument("--json", action="store_true", help="print one JSON object")
    demo = command("demo", _demo, "run a day of sample merchants in a temporary ledger, then verify its books")
    demo.add_argument("--seconds", type=int, default=20, help="duration of the traffic (default 20)")
    demo.add_argument("--rate", type=int, default=200, help="payments per second (default 200)")
    demo.add_argument("--keep", action="store_true", help="keep the services running until Ctrl-C")
    doctor = command("doctor", _doctor, "check this installation and suggest fixes")
    settings = command("settings", _show_settings, "print the effective settings and their sources")
    command("tools", _tools, "print the directory of the embedded Postgres tools, such as pg_basebackup and psql")
    hot = commands.add_parser(
        "hot", help="list, split and merge hot accounts", description="List, split and merge hot accounts."
    )
    hots = hot.add_subparsers(required=True, metavar="COMMAND")
    hot_list = hots.add_parser("list", help="list accounts that are hot or split, with the reason")
    hot_list.set_defaults(run=_hot_list)
    hot_split = hots.add_parser("split", help="split an account into several slots")
    hot_split.set_defaults(run=_hot_split)
    hot_split.add_argument("--slots", type=int, help="number of slots (default: one for each worker, at least 2)")
    hot_merge = hots.add_parser("merge", help="merge an account into one slot")
    hot_merge.set_defaults(run=_hot_merge)
    for with_account in (hot_split, hot_merge):
        with_account.add_argument("account")
        with_account.add_argument("--reason", default="requested by an operator", help="stored in the slot map log")
    ratelimit = commands.add_parser(
        "ratelimit",
        help="check and measure rate limits",
        description="Check rate-limit policies and measure the limiter.",
    )
    ratelimits = ratelimit.add_subparsers(required=True, metavar="COMMAND")
    check = ratelimits.add_parser("check", help="validate a policies file; exit status 1 if it is invalid")
    check.set_defaults(run=_check_limits)
    check.add_argument("file", type=Path, metavar="FILE")
    measure = ratelimits.add_parser("bench", help="measure the cost of a rate-limit decision on this machine")
    measure.set_defaults(run=_bench_limits)
    _add_jobs(commands)
    _add_orders(commands)
    _add_persons(commands)
    _add_calendar(commands)
    add_payouts(commands, _settings)
    bench = commands.add_parser("bench", help="run benchmarks against baselines", add_help=False)
    bench.set_defaults(run=_bench)
    for with_json in (doctor, settings, hot_list):
        with_json.add_argument("--json", action="store_true", help="print JSON")
    for with_data in (serve, migrate, verify, doctor, settings, hot_list, hot_split, hot_merge):
        with_data.add_argument("--data", dest="data_dir", metavar="DIR", help="data directory (default ./data)")
    return parser
