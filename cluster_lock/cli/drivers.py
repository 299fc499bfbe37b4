"""`cluster-lock drivers`: where locks can be kept from here, and what is missing for the others."""

from __future__ import annotations

import argparse
from importlib import metadata
from typing import Any

from .output import add_json_option, print_json
from .tables import Line, Part, Table, show

LIBRARIES = {
    "file": (),
    "etcd": ("cslab-etcd3", "etcd3", "etcd3-fc", "etcd3-fork", "grpcio", "protobuf"),
    "redis": ("redis",),
    "consul": ("python-consul2", "py-consul", "python-consul", "aiohttp"),
    "postgres": ("psycopg", "psycopg-binary"),
}
"""Of each driver of ours: the distributions that its client may come from, and those that it needs beside."""


def add(commands: Any) -> None:
    parser: argparse.ArgumentParser = commands.add_parser(
        "drivers",
        help="show which backends can be used",
        description="Show every driver: whether it can be used here, with which versions of its client library, or what"
        " to install.",
        examples=("", "--json"),
    )
    add_json_option(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from cluster_lock.drivers import BUILTIN, available

    found = [_ours(name) if name in BUILTIN else _theirs(name) for name in available()]
    if arguments.json:
        print_json({"drivers": found})
        return 0
    table = Table(("DRIVER", "USABLE", "EXTRA", "FROM", "LIBRARIES"))
    for driver in found:
        libraries = ", ".join(f"{name} {version}" for name, version in driver["libraries"].items())
        usable = "yes" if driver["usable"] else "no"
        cells = (driver["name"], usable, driver["extra"] or "-", driver["from"], libraries or "-")
        table.add(cells, "" if driver["usable"] else "yellow")
    problems: list[Part] = [Line(f"{d['name']}: {d['problem']}", "yellow") for d in found if d["problem"]]
    show([table, *problems])
    return 0


def _ours(name: str) -> dict[str, Any]:
    from cluster_lock.config.known_keys import SECTIONS
    from cluster_lock.drivers import why_unusable
    from cluster_lock.version import __version__

    libraries = {library: version for library in LIBRARIES[name] if (version := _version(library)) is not None}
    extra = name if LIBRARIES[name] else None
    told = _told(name, extra, f"cluster-lock {__version__}", libraries, why_unusable(name))
    return {**told, "settings": list(SECTIONS[name])}


def _theirs(name: str) -> dict[str, Any]:
    from cluster_lock.config.foreign import settings_model
    from cluster_lock.drivers import GROUP, why_unusable
    from cluster_lock.errors import ConfigError

    (point, *_) = metadata.entry_points(group=GROUP, name=name)
    source = f"{point.dist.name} {point.dist.version}" if point.dist else point.value
    problem, settings = why_unusable(name), None
    if problem is None:
        try:
            model = settings_model(name)
            settings = None if model is None else list(model.model_fields)
        except ConfigError as error:
            problem = str(error)
    return {**_told(name, None, source, {}, problem), "settings": settings}


def _told(name: str, extra: str | None, source: str, libraries: dict[str, str], problem: str | None) -> dict[str, Any]:
    return {
        "name": name,
        "usable": problem is None,
        "extra": extra,
        "from": source,
        "libraries": libraries,
        "problem": problem,
    }


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
