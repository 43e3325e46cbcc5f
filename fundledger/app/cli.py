"""The command line."""

import argparse
import asyncio
import sys
from collections.abc import Sequence

from fundledger.app.logs import configure_logs
from fundledger.app.settings import BadSetting, Settings, read_settings, sources
from fundledger.app.supervisor import CannotServe, Supervisor, migrate_database


def main(arguments: Sequence[str] | None = None) -> None:
    """Exit status: 0 well, 1 findings, 2 a bad setting or something that is not there."""
    options = _parser().parse_args(arguments)
    try:
        sys.exit(options.run(options))
    except (BadSetting, CannotServe) as error:
        print(f"fundledger: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def _settings(options: argparse.Namespace) -> Settings:
    names = ("data_dir", "workers", "port", "profile")
    settings = read_settings(**{name: getattr(options, name, None) for name in names})
    return settings.model_copy(update={"data_dir": settings.data_dir.resolve()})


def _serve(options: argparse.Namespace) -> int:
    settings = _settings(options)
    if settings.profile == "prod":
        raise BadSetting("FUNDLEDGER_PROFILE='prod': needs TLS and signed requests, which this version has not; accepted: dev")
    configure_logs(settings.log_level, {})
    asyncio.run(Supervisor(settings).run())
    return 0


def _show_settings(options: argparse.Namespace) -> int:
    rows = sources(_settings(options))
    width = max(len(name) for name, _, _ in rows)
    for name, value, where in rows:
        print(f"{name:{width}}  {value:30}  {where}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fundledger", description="A payment fund account system.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serve = commands.add_parser("serve", help="start everything; Ctrl-C drains and stops")
    serve.add_argument("--workers", type=int)
    serve.add_argument("--port", type=int)
    serve.add_argument("--profile", choices=["dev", "prod"])
    serve.set_defaults(run=_serve)
    for command in (serve,):
        command.add_argument("--data", dest="data_dir", metavar="DIR")
    shown = commands.add_parser("settings", help="the effective settings, with where each came from")
    shown.set_defaults(run=_show_settings)
    return parser
