"""The command line."""

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from fundledger.app.build import this_build, version_line
from fundledger.app.children import forbid_core_dumps, hide_memory
from fundledger.app.settings import BadSetting, Settings, read_settings, sources
from fundledger.app.terminal import complain, open_standard_files


def main(arguments: Sequence[str] | None = None) -> None:
    """Exit status: 0 well, 1 findings, 2 a bad setting or something that is not there."""
    from fundledger.app.claims import CannotServe

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
    from fundledger.app.logs import configure_logs
    from fundledger.app.supervisor import Supervisor

    settings = _settings(options)
    if settings.profile == "prod":
        raise BadSetting(
            "FUNDLEDGER_PROFILE='prod': needs TLS and signed requests, which this version has not; accepted: dev"
        )
    configure_logs(settings.log_level, {}, settings.log_format)
    # Whatever is made from here on, by children too, is for this user only.
    os.umask(0o077)
    hide_memory()
    asyncio.run(Supervisor(settings).run())
    return 0


def _migrate(options: argparse.Namespace) -> int:
    from fundledger.app.books import run_migrate

    return asyncio.run(run_migrate(_settings(options)))


def _verify(options: argparse.Namespace) -> int:
    from fundledger.app.books import run_verify

    return asyncio.run(run_verify(lambda: _settings(options), options.json))


def _doctor(options: argparse.Namespace) -> int:
    from fundledger.app.doctor import run_doctor

    return asyncio.run(run_doctor(_settings(options), as_json=options.json))


def _demo(options: argparse.Namespace) -> int:
    from fundledger.app.demo import run_demo

    return asyncio.run(run_demo(_settings(options), options.seconds, options.rate))


def _bench(options: argparse.Namespace) -> int:
    from fundledger.benchmarks.bench import main as bench

    return bench(options.rest)


def _hot_list(options: argparse.Namespace) -> int:
    from fundledger.app.hot import run_list

    return asyncio.run(run_list(_settings(options), as_json=options.json))


def _hot_split(options: argparse.Namespace) -> int:
    from fundledger.app.hot import run_resplit

    settings = _settings(options)
    slots = max(2, settings.workers) if options.slots is None else options.slots
    return asyncio.run(run_resplit(settings, options.account, slots, options.reason))


def _hot_merge(options: argparse.Namespace) -> int:
    from fundledger.app.hot import run_resplit

    return asyncio.run(run_resplit(_settings(options), options.account, 1, options.reason))


def _check_limits(options: argparse.Namespace) -> int:
    from fundledger.app.limits import check_policies

    return check_policies(options.file, _settings(options).workers)


def _bench_limits(options: argparse.Namespace) -> int:
    from fundledger.app.limits_bench import run_bench

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
    from fundledger.app.postgres import PostgresFault, installed

    del options
    try:
        print(installed() / "bin")
    except PostgresFault as fault:
        raise BadSetting(str(fault)) from None
    return 0


def _daemons_list(options: argparse.Namespace) -> int:
    from fundledger.app.daemons_list import run_list

    return asyncio.run(run_list(_settings(options), as_json=options.json))


def _daemons_run(options: argparse.Namespace) -> int:
    from fundledger.app.daemons_list import run_daemon

    return asyncio.run(run_daemon(_settings(options), options.name))


def _add_daemons(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    help_ = "work that is done by itself"
    daemons = commands.add_parser("daemons", help=help_, description="Daemons: who runs them, and one turn by hand.")
    subcommands = daemons.add_subparsers(required=True, metavar="COMMAND")
    listing = subcommands.add_parser(
        "list", help="who runs which, since when, how well; exit status 1 if one is overdue"
    )
    listing.set_defaults(run=_daemons_list)
    listing.add_argument("--json", action="store_true", help="JSON, for programs")
    running = subcommands.add_parser("run", help="one turn, unless somebody else runs it; exit status 1 if it failed")
    running.set_defaults(run=_daemons_run)
    running.add_argument("name", metavar="NAME")
    running.add_argument("--once", action="store_true", required=True, help="one turn; there is no other way")
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

    serve = command("serve", _serve, "start everything; Ctrl-C drains and stops")
    serve.add_argument("--workers", type=int, help="worker processes on the port")
    serve.add_argument("--port", type=int, help="port of the account service")
    serve.add_argument("--fund-port", type=int, help="port of the fund service")
    serve.add_argument("--profile", choices=["dev", "prod"])
    migrate = command("migrate", _migrate, "bring the schemas of both databases up to date")
    verify = command("verify", _verify, "prove the books")
    verify.epilog = (
        "Exit status: 0 the books are right, 1 there are findings, 2 the configuration names no ledger, 3 the proof "
        "could not be finished (a database or a key is missing). With --json, standard output is one JSON object in "
        "each case."
    )
    verify.add_argument("--json", action="store_true", help="one JSON object")
    demo = command("demo", _demo, "sample merchants and traffic in a ledger of its own, then a proof of the books")
    demo.add_argument("--seconds", type=int, default=20, help="how long (default 20)")
    demo.add_argument("--rate", type=int, default=200, help="payments per second (default 200)")
    doctor = command("doctor", _doctor, "what is wrong with this installation, and what to do")
    settings = command("settings", _show_settings, "the effective settings, with where each came from")
    command("tools", _tools, "print the folder of the tools of the embedded Postgres, such as pg_basebackup and psql")
    hot = commands.add_parser("hot", help="hot accounts", description="Hot accounts: list, split and merge them.")
    hots = hot.add_subparsers(required=True, metavar="COMMAND")
    hot_list = hots.add_parser("list", help="which accounts are hot or split, and why")
    hot_list.set_defaults(run=_hot_list)
    hot_split = hots.add_parser("split", help="spread an account over several slots")
    hot_split.set_defaults(run=_hot_split)
    hot_split.add_argument("--slots", type=int, help="how many (default: one for each worker)")
    hot_merge = hots.add_parser("merge", help="back to one slot")
    hot_merge.set_defaults(run=_hot_merge)
    for with_account in (hot_split, hot_merge):
        with_account.add_argument("account")
        with_account.add_argument("--reason", default="an operator asked", help="kept in the log of routes")
    ratelimit = commands.add_parser("ratelimit", help="who may do how much", description="The policies of the limiter.")
    ratelimits = ratelimit.add_subparsers(required=True, metavar="COMMAND")
    check = ratelimits.add_parser("check", help="whether a file of policies would be taken; exit status 1 if not")
    check.set_defaults(run=_check_limits)
    check.add_argument("file", type=Path, metavar="FILE")
    measure = ratelimits.add_parser("bench", help="what a decision costs on this machine")
    measure.set_defaults(run=_bench_limits)
    _add_daemons(commands)
    bench = commands.add_parser("bench", help="measure this service beside its baselines", add_help=False)
    bench.set_defaults(run=_bench)
    for with_json in (doctor, settings, hot_list):
        with_json.add_argument("--json", action="store_true", help="JSON, for programs")
    for with_data in (serve, migrate, verify, doctor, settings, hot_list, hot_split, hot_merge):
        with_data.add_argument("--data", dest="data_dir", metavar="DIR", help="data directory (default ./data)")
    return parser
