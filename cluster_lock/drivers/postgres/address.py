"""Where PostgreSQL is and as whom we come, as libpq reads it: a connection string, then its variables and files."""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster_lock.drivers.shared.addresses import Address
from cluster_lock.drivers.shared.libpq import NO_DSN, dsn_problem
from cluster_lock.drivers.shared.tls_files import TLSFiles
from cluster_lock.errors import ConfigError

from .library import load


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
        self._given = given
        defaults = _defaults(psycopg)
        # What a service says comes before the variables, and only libpq reads it.
        others = {} if "service" in given else defaults
        names = ("host", "hostaddr", "port", "dbname")
        self._place = {name: str(given.get(name) or others.get(name) or "") for name in names}
        elsewhere = not all(map(_is_here, (self._place["hostaddr"] or self._place["host"]).split(",")))
        if ca is not None:
            given.setdefault("sslmode", "verify-full")
        elif elsewhere and not defaults.get("sslmode_set") and "service" not in given:
            given.setdefault("sslmode", "require")

    @property
    def attempts(self) -> list[Mapping[str, Any]]:
        """What to connect with, a mapping for each host, in their order."""
        lists = {name: self._place[name].split(",") for name in ("host", "hostaddr") if self._place[name]}
        count = max(map(len, lists.values()), default=1)
        if count < 2:
            return [self._given]
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


def _defaults(psycopg: Any) -> dict[str, Any]:
    """What libpq takes from its variables and from the service that they name."""
    found: dict[str, Any] = {}
    for option in psycopg.pq.Conninfo.get_defaults():
        name = option.keyword.decode()
        found[name] = option.val.decode() if option.val is not None else None
        if name == "sslmode":
            found["sslmode_set"] = option.val is not None and option.val != option.compiled
    return found


def _is_here(host: str) -> bool:
    """On this host: nobody listens in."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in ("", "localhost") or host.startswith(("/", "@"))
