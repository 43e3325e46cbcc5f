"""Restore a frozen data set into a data directory, as the release left it."""

import shutil
import subprocess
from pathlib import Path

from fundledger.app.host.postgres.server import EmbeddedPostgres, _binaries
from tests.frozen.freeze import DUMPS, HERE, SECRETS

RELEASES = sorted(path.name for path in HERE.iterdir() if (path / "requests.json").exists())


async def restore(release: str, data_dir: Path) -> None:
    """Restore the data set of a release into `data_dir`, which must not exist. Stop the embedded server at the end."""
    frozen = HERE / release
    data_dir.mkdir(mode=0o700)
    for secret in SECRETS:
        (data_dir / secret).parent.mkdir(mode=0o700, exist_ok=True)
        shutil.copy(frozen / secret, data_dir / secret)
        (data_dir / secret).chmod(0o600)
    server = EmbeddedPostgres(data_dir, 256, fund=True)
    await server.start()
    try:
        for which, dsn in (("account", server.dsn), ("fund", server.fund_dsn)):
            command = [_binaries(None) / "psql", "-q", "--no-psqlrc", "--set=ON_ERROR_STOP=1", "--single-transaction"]
            load = [*command, f"--file={frozen / DUMPS[which]}", dsn]
            done = subprocess.run(load, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
    finally:
        await server.stop()
