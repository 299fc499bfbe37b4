"""`cluster-lock status`: who leads what."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from cluster_lock import clock
from cluster_lock.host.masking import shortened

from .options import add_settings_options, settings_from
from .output import add_json_option, duration, opened, print_json, run
from .streams import stop_if_unread
from .tables import Line, Part, Table, living, show

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cluster_lock.admin.overview import LockSeen, Overview
    from cluster_lock.config import Settings
    from cluster_lock.values import BackendNode

    Picture = Callable[[], Awaitable[Overview]]

WATCH_EVERY = 1.0

TITLES = ("LOCK", "LEADER", "HOST", "PID", "FOR", "TERM", "LEASE LEFT", "STANDBYS", "HEALTH")
NOBODY_CAN_LEAD = "nobody can lead until a person acts"


def add(commands: Any) -> None:
    parser: argparse.ArgumentParser = commands.add_parser(
        "status",
        help="show who leads",
        description="Show every lock under the prefix: who leads it, since when, in which term (its fencing token), who"
        " stands by; and the servers of the backend. Changes nothing and needs the right to read and no other.",
        examples=("", "telegram/123456 --watch", "--json"),
    )
    parser.add_argument("name", nargs="*", metavar="NAME", help="only these locks")
    parser.add_argument("--watch", action="store_true", help="go on showing it, once a second, until Ctrl-C")
    add_json_option(parser)
    add_settings_options(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    return run(_status(arguments, settings_from(arguments)))


async def _status(arguments: argparse.Namespace, settings: Settings) -> int:
    from cluster_lock.admin.overview import look

    only = frozenset(arguments.name)

    async def picture() -> Overview:
        floor, request = settings.fencing_floor, settings.timing.request
        return await look(driver, only=only, fencing_floor=floor, request=request)

    empty = _empty(settings)
    async with opened(settings) as driver:
        if arguments.watch:
            await (_watch_json(picture, settings.prefix) if arguments.json else _watch(picture, empty))
        elif arguments.json:
            print_json(as_json(await picture(), settings.prefix))
        else:
            show(_parts(await picture(), empty))
    return 0


async def _watch_json(picture: Picture, prefix: str) -> None:
    """One line for each picture that is another one than that before; what is left of leases alone makes none."""
    import asyncio

    before: Any = None
    while True:
        content = as_json(await picture(), prefix)
        essence = [lock | {"lease_left": None} for lock in content["locks"]], content["nodes"]
        if essence != before:
            print(json.dumps(content, ensure_ascii=False), flush=True)
            stop_if_unread()
        before = essence
        await asyncio.sleep(WATCH_EVERY)


async def _watch(picture: Picture, empty: list[Part]) -> None:
    """Until Ctrl-C. A backend that is away for a while is said, and the last picture stays."""
    import asyncio

    from cluster_lock.errors import BackendUnavailable

    shown: list[Part] = []
    with living() as draw:
        while True:
            try:
                shown = _parts(await picture(), empty)
            except BackendUnavailable as error:
                draw([*shown, Line(str(error), "red")])
            else:
                draw(shown)
            await asyncio.sleep(WATCH_EVERY)


def as_json(overview: Overview, prefix: str) -> dict[str, Any]:
    """The documented object. What is not known is null."""
    return {
        "backend": overview.backend,
        "prefix": prefix,
        "nodes": [
            {each: getattr(node, each) for each in ("name", "address", "leads", "version", "problem")}
            for node in overview.nodes
        ],
        "nodes_problem": overview.nodes_problem,
        "locks": [_lock_json(lock) for lock in overview.locks],
    }


def _lock_json(lock: LockSeen) -> dict[str, Any]:
    record = lock.record
    return {
        "name": lock.name,
        "state": _state(lock),
        "leader": record.instance if record else None,
        "host": record.host if record else None,
        "pid": record.pid if record else None,
        "since": record.since if record else None,
        "term": lock.term,
        "lease": lock.lease,
        "ttl": lock.times.ttl,
        "lease_left": lock.times.left,
        "standbys": list(lock.standbys),
        "health": record.health if record else None,
        "version": record.version if record else None,
        "config": record.config if record else None,
        "foreign": lock.foreign.decode(errors="backslashreplace") if lock.foreign is not None else None,
    }


def _state(lock: LockSeen) -> str:
    if lock.foreign is not None:
        return "foreign"
    return "led" if lock.lease is not None else "free"


def _empty(settings: Settings) -> list[Part]:
    """What is said where there are no locks. Each user has a folder: no locks in this one means nothing else."""
    if settings.backend != "file":
        return [Line(f"no locks under {settings.prefix}")]
    here = f"no locks in {settings.file.directory}: nobody leads or waits here"
    other = (
        "a bot that runs as a service, or as another user, keeps its locks in another folder: ask as that user, with"
        " its configuration (--config) or its CLUSTER_LOCK_STATE_DIR"
    )
    return [Line(here), Line(f"  {other}", "yellow")]


def _parts(overview: Overview, empty: list[Part]) -> list[Part]:
    table = Table(TITLES, right=("PID", "FOR", "TERM", "LEASE LEFT"))
    for lock in overview.locks:
        table.add(_row(lock), "red" if lock.lease is None else "")
    notes = [Line(note, "red") for lock in overview.locks if (note := _note(lock))]
    return [*_servers(overview), *([table] if overview.locks else empty), *notes]


def _row(lock: LockSeen) -> list[str]:
    standbys, record = ", ".join(lock.standbys) or "-", lock.record
    if lock.lease is None:
        return [lock.name, "NOBODY" if lock.foreign is None else "FOREIGN", *"-----", standbys, "-"]
    left = f"{lock.times.left:.0f} s" if lock.times.left is not None else "-"
    if record is None:
        return [lock.name, "?", "-", "-", "-", "?", left, standbys, "-"]
    for_ = duration(clock.age_of(record.since))
    health = record.health or "-"
    return [lock.name, record.instance, record.host, str(record.pid), for_, str(lock.term), left, standbys, health]


def _note(lock: LockSeen) -> str:
    if lock.foreign is not None:
        value = shortened(lock.foreign.decode(errors="backslashreplace"), 60)
        return f"{lock.name}: {NOBODY_CAN_LEAD}: under its key stands {value!r}, which no leader wrote"
    if lock.lease is not None and lock.record is None:
        return f"{lock.name}: somebody overwrote the value under the lock; lease {lock.lease} still holds it"
    return ""


def _servers(overview: Overview) -> list[Part]:
    lines: list[Part] = [Line(overview.backend, "bold")]
    if overview.nodes_problem is not None:
        lines.append(Line(f"  servers: {overview.nodes_problem}", "yellow"))
    return lines + [Line(f"  {_server(node)}", "red" if node.problem else "") for node in overview.nodes]


def _server(node: BackendNode) -> str:
    parts = [node.name] + ([node.address] if node.address != node.name else [])
    parts += [node.version] if node.version else []
    parts += ["leads the servers"] if node.leads else []
    return "  ".join(parts) + (f"  {node.problem}" if node.problem else "")
