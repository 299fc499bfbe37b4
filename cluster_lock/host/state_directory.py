"""Where lock files, counters and state files live on a host: a place that survives a reboot, never a temp folder.

A cleaner of temp folders deletes lock files under their holders, and systemd's PrivateTmp gives every unit a /tmp of
its own: two processes would then hold "the same" lock.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from cluster_lock.errors import ConfigError

APPLICATION = "cluster-lock"
RELATIVE = "a process that is started in another folder would not meet this one"


_NO_HOME = "this user has no home directory to keep state in: set CLUSTER_LOCK_STATE_DIR"


def state_directory(environ: Mapping[str, str] | None = None) -> Path:
    """The folder, which need not exist yet.

    `CLUSTER_LOCK_STATE_DIR`; else what systemd made for the unit (`STATE_DIRECTORY`, the first of several); else
    /var/lib/cluster-lock for root, `XDG_STATE_HOME` or ~/.local/state for others; on macOS ~/Library/Application
    Support, on Windows `LOCALAPPDATA`. Raises ConfigError where none of them can be told, and for a relative path: two
    processes that were started in two folders would keep two states, and hold two locks of one name.
    """
    environ = os.environ if environ is None else environ
    if chosen := environ.get("CLUSTER_LOCK_STATE_DIR"):
        if not Path(chosen).is_absolute():
            raise ConfigError([f"CLUSTER_LOCK_STATE_DIR must be an absolute path, but is {chosen[:200]!r}: {RELATIVE}"])
        return Path(chosen)
    if given := environ.get("STATE_DIRECTORY", "").split(":")[0]:
        return Path(given)
    return _platform_folder(environ) / APPLICATION


def file_name(instance: str) -> str:
    """What a file of this instance is called."""
    return quote(instance, safe="@+,=")


def _platform_folder(environ: Mapping[str, str]) -> Path:
    if sys.platform == "win32":
        local = environ.get("LOCALAPPDATA")
        return Path(local) if local else _home(environ) / "AppData" / "Local"
    if sys.platform == "darwin":
        return _home(environ) / "Library" / "Application Support"
    if os.geteuid() == 0:
        return Path("/var/lib")
    given = Path(environ.get("XDG_STATE_HOME", ""))
    # A relative path is to be ignored, says the XDG base directory specification.
    return given if given.is_absolute() else _home(environ) / ".local" / "state"


def _home(environ: Mapping[str, str]) -> Path:
    try:
        home = Path(environ.get("HOME") or Path.home())
    except RuntimeError as error:
        raise ConfigError([_NO_HOME]) from error
    if not home.is_absolute():
        raise ConfigError([_NO_HOME])
    return home
