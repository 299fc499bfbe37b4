"""Where PostgreSQL is and as whom we come, as libpq reads it: a connection string, then its variables and files."""

from __future__ import annotations

import ipaddress
import itertools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster_lock.drivers.shared.addresses import Address
from cluster_lock.drivers.shared.tls_files import TLSFiles
from cluster_lock.errors import ConfigError

from .key_files import check
from .libpq import NO_DSN, dsn_problem
from .library import load
from .texts import fits
from .told import told


class PostgresAccess:
    """All of it, checked. Raises ConfigError with every problem at once, DriverMissing without psycopg."""

    def __init__(
        self,
        dsn: str | None = None,
        *,
        user: str | None = None,
        password: str | None = None,
        ca: str | Path | None = None,
        cert: str | Path | None = None,
        key: str | Path | None = None,
    ) -> None:
        psycopg = load()
        _check_texts({"dsn": dsn, "user": user, "password": password, "ca": ca, "cert": cert, "key": key})
        if (problem := dsn_problem(dsn or "")) is not None:
            raise ConfigError([f"postgres: dsn {problem}"])
        try:
            given: dict[str, Any] = psycopg.conninfo.conninfo_to_dict(dsn or "")
        except psycopg.ProgrammingError:
            # libpq's own words quote what stands in it.
            raise ConfigError([f"postgres: dsn {NO_DSN}"]) from None
        problems = []
        if (cert is None) != (key is None):
            problems.append("postgres: a client certificate needs both of cert and key")
        attributes = given.get("target_session_attrs", "read-write")
        if attributes not in ("read-write", "primary", "any"):
            problems.append(f"postgres: target_session_attrs={attributes} never reaches a server that takes locks")
        if ca is not None and given.get("sslmode") in ("disable", "allow", "prefer"):
            problems.append(f"postgres: ca asks for TLS, which sslmode={given['sslmode']} does not")
        if problems:
            raise ConfigError(problems)
        self.files = TLSFiles("postgres", ca, cert, key) if ca is not None or cert is not None else None
        files = {"sslrootcert": ca, "sslcert": cert, "sslkey": key}
        given |= {name: str(path) for name, path in files.items() if path is not None}
        given |= {name: value for name, value in {"user": user, "password": password}.items() if value}
        given["target_session_attrs"] = "read-write"
        given.setdefault("application_name", "cluster-lock")
        given["client_encoding"] = "UTF8"
        if ca is not None:
            given.setdefault("sslmode", "verify-full")
        found = told(psycopg, given)
        self._place = {name: found.get(name, "") for name in ("host", "hostaddr", "port", "dbname")}
        if "dbname" not in given and found.get("dbname") == found.get("user"):
            self._place["dbname"] = ""  # libpq's guess
        elsewhere = not all(map(_is_here, (self._place["hostaddr"] or self._place["host"]).split(",")))
        # By itself libpq does without TLS if the server has none, or somebody in its place says so.
        unsaid = found["sslmode"] == "prefer" and "sslmode" not in given and not os.environ.get("PGSSLMODE")
        if elsewhere and unsaid:
            found["sslmode"] = given["sslmode"] = "require"
        self._given, self._told = given, found

    def check_files(self) -> None:
        """Those of TLS. Raises ConfigError, PermissionRefused."""
        if self.files is not None:
            self.files.load()
        if self.addresses:  # a socket of this host has no TLS
            check(self._told)

    @property
    def attempts(self) -> list[Mapping[str, Any]]:
        """What to connect with, a mapping for each host, in their order."""
        lists = {name: self._place[name].split(",") for name in ("host", "hostaddr") if self._place[name]}
        count = max(map(len, lists.values()), default=1)
        ports = self._place["port"].split(",")
        lists["port"] = ports * count if len(ports) == 1 else ports[:count]
        return [
            {**self._given, **dict(zip(lists, place, strict=True))}
            for place in itertools.zip_longest(*lists.values(), fillvalue="")
        ]

    @property
    def addresses(self) -> list[Address]:
        """Of the servers that are reached by TCP, which is TLS where we know whom to trust."""
        tls = "sslrootcert" in self._given
        return [
            Address(host, int(port), tls, schemes=("postgresql", "postgresql"))
            for host, port in self._places()
            if host and not host.startswith(("/", "@")) and port.isdecimal()
        ]

    def _places(self) -> list[tuple[str, str]]:
        hosts = (self._place["host"] or self._place["hostaddr"]).split(",")
        ports = self._place["port"].split(",")
        ports = ports * len(hosts) if len(ports) == 1 else ports
        return [(host, port or "5432") for host, port in zip(hosts, ports, strict=False)]

    def __str__(self) -> str:
        """For people: no user, no password."""
        places = [f"{host or 'localhost'}:{port}" for host, port in self._places()]
        database = self._place["dbname"]
        return f"postgres {','.join(places)}" + (f"/{database}" if database else "")


def _check_texts(given: Mapping[str, str | Path | None]) -> None:
    """Raises ConfigError that names what cannot be told to PostgreSQL, and does not repeat it."""
    if bad := [name for name, value in given.items() if value is not None and not fits(str(value))]:
        raise ConfigError([f"postgres: {name} has a NUL in it, or a byte that is not UTF-8" for name in bad])


def _is_here(host: str) -> bool:
    """On this host: nobody listens in."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in ("", "localhost") or host.startswith(("/", "@"))
