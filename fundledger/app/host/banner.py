"""Host of the services: the banner that `serve` prints when it is ready, with addresses, files and example requests."""

from typing import NamedTuple

from fundledger.app.host.dev_persons import DEV_PERSONS
from fundledger.settings import SIMULATOR_TOKEN, Settings, url_of


class Running(NamedTuple):
    """State of `serve` that is not in the settings.

    `limits`: location of the rate-limit store. `fund`: whether the fund service serves; None if that service is off.
    """

    limits: str
    fund: bool | None
    channels: dict[str, str]


def banner(settings: Settings, running: Running) -> str:
    """Return the banner. Its first line reports readiness."""
    here = url_of(settings.host, settings.port)
    folder = settings.data_dir
    headers = f'-H "Authorization: Bearer $(cat {folder / "dev-token"})" -H "Content-Type: application/json"'
    account = '{"id":"bank:demo","owner":"platform","type":"bank","currency":"CNY"}'
    lines = [
        f"fundledger: ready, {settings.workers} workers",
        f"  account service  {here}    reference {here}/docs",
        f"  API token        {folder / 'dev-token'}",
        f"  database         {'FUNDLEDGER_ACCOUNT_DSN' if settings.account_dsn else folder / 'postgres'}",
        f"  limits           {running.limits}",
        f"  try              curl -s {here}/v1/accounts {headers} -d '{account}'",
    ]
    if running.fund is not None:
        lines += _fund(settings, running, headers)
    return "\n".join([*lines, "  Ctrl-C drains and stops"])


def _fund(settings: Settings, running: Running, headers: str) -> list[str]:
    here = url_of(settings.host, settings.fund_port)
    merchant = '{"id":"10001","name":"A shop","currency":"CNY"}'
    if not running.fund:
        return ["  fund service     not ready, restarting: see the log above"]
    persons = DEV_PERSONS.items() if settings.profile == "dev" else ()
    lines = [
        f"  fund service     {here}    reference {here}/docs",
        f"  API token        {settings.data_dir / 'dev-token'}, as above",
        *[f"  person           {role} {name}, token {settings.data_dir / name}-token" for name, role in persons],
        f"  fund database    {'FUNDLEDGER_FUND_DSN' if settings.fund_dsn else settings.data_dir / 'postgres'}",
    ]
    word = "channels" if settings.channels else "simulator"
    lines += [f"  {word:16} {name} at {place}" for name, place in running.channels.items()]
    if not settings.channels:
        lines.append(f"  simulator token  {settings.data_dir / SIMULATOR_TOKEN}")
    return [*lines, f"  try              curl -s {here}/v1/merchants {headers} -d '{merchant}'"]
