"""Where the servers' programs are: the tools folder that `scripts/install-servers` fills, else PATH."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

ETCD_RELEASES = ("3.5", "3.4")
"""The releases that the tools folder holds side by side, the preferred one first."""

POSTGRES_RELEASES = ("18", "15")
"""As above."""

# The tools folder stands in for the one of the checkout, as CI and tox share one between environments.
TOOLS_VARIABLE = "CLUSTER_LOCK_TOOLS"


class ServerMissing(Exception):
    """A server's program is not on this machine. The text is one sentence that says what to run."""


def find_tool(server: str, program: str, release: str | None = None) -> Path:
    """The path of `program`, which belongs to `server` ("etcd", "consul", "redis", "postgres"), of that release if one
    is named.

    Looked for in `$CLUSTER_LOCK_TOOLS` (else the checkout's `.tools`), then on PATH. Raises `ServerMissing`.
    """
    folder = _tools_folder()
    for candidate in _candidates(folder, server, program, release) if folder else ():
        if os.access(candidate, os.X_OK):
            return candidate
    on_path = shutil.which(program)
    if on_path is not None and (release is None or _release_of(on_path).startswith(release + ".")):
        return Path(on_path)
    what = f"{program} {release}" if release else program
    raise ServerMissing(f"{what} is not installed: run 'make servers' or 'scripts/install-servers {server}'")


def _tools_folder() -> Path | None:
    named = os.environ.get(TOOLS_VARIABLE)
    if named:
        return Path(named)
    checkout = Path(__file__).parents[3]
    return checkout / ".tools" if (checkout / "pyproject.toml").is_file() else None


def _candidates(folder: Path, server: str, program: str, release: str | None) -> Iterator[Path]:
    if server == "etcd":
        for each in (release,) if release else ETCD_RELEASES:
            yield folder / f"etcd-{each}" / program
    elif server == "postgres":
        for each in (release,) if release else POSTGRES_RELEASES:
            yield folder / f"postgres-{each}" / "usr" / "sbin" / program
            yield folder / f"postgres-{each}" / "usr" / "lib" / "postgresql" / each / "bin" / program
    elif release:
        yield folder / f"{server}-{release}" / program
    else:
        yield folder / "bin" / program


def _release_of(program: str) -> str:
    answer = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10, check=False)
    found = re.search(r"\d+\.\d+\.\d+", answer.stdout)
    return found.group() if found else ""
