"""The files of TLS as libpq will want them, looked at before it connects: it would tell of them as of an outage.

Only when a driver is opened. Later they are replaced one after the other, and what does not fit for a moment passes.
"""

from __future__ import annotations

import os
import ssl
import stat
from collections.abc import Mapping
from pathlib import Path

from cluster_lock.errors import ConfigError, PermissionRefused

_KEY = Path("~/.postgresql/postgresql.key")


def check(told: Mapping[str, str]) -> None:
    """Raises ConfigError for what it would refuse, PermissionRefused for what we may not read."""
    if told["sslmode"] == "disable":
        return
    root, cert = told.get("sslrootcert", ""), told.get("sslcert", "")
    if root and root != "system" and (told["sslmode"].startswith("verify") or Path(root).exists()):
        _read(root)
        try:
            ssl.create_default_context(cafile=root)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError([f"postgres: {root} cannot be used: {error.strerror or error}"]) from error
    if cert and Path(cert).exists():  # else it does without
        _check_pair(cert, told.get("sslkey") or str(_KEY.expanduser()), told.get("sslpassword", ""))


def _check_pair(cert: str, key: str, password: str) -> None:
    if ":" in key and not Path(key).exists():
        return  # in a device, which only libpq reaches
    _read(cert)
    content = _read(key)
    if os.name == "posix":
        _check_mode(key)
    if b"-----BEGIN" not in content:
        return  # of a form that Python does not read
    try:
        # A callable, or OpenSSL asks for the key's password at the terminal.
        ssl.create_default_context().load_cert_chain(cert, key, password=lambda: password)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            [f"postgres: cert {cert} with key {key} cannot be used: {error.strerror or error}"]
        ) from error


def _check_mode(key: str) -> None:
    """libpq takes no key that others might read."""
    found = Path(key).stat()
    of_others = stat.S_IWGRP | stat.S_IXGRP | stat.S_IRWXO if found.st_uid == 0 else stat.S_IRWXG | stat.S_IRWXO
    if found.st_mode & of_others:
        mode = stat.S_IMODE(found.st_mode)
        raise ConfigError(
            [f"postgres: key {key} has the mode {mode:04o}: it must be 0600 or less, or 0640 if it is root's"]
        )


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except PermissionError as error:
        raise PermissionRefused(f"postgres: {path} cannot be read: {error.strerror}") from error
    except OSError as error:
        raise ConfigError([f"postgres: {path} cannot be used: {error.strerror}"]) from error
