"""`cluster-lock release --force`: take a lock from a leader that does not give it away."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from .options import add_settings_options, settings_from
from .output import add_json_option, opened, print_json, run, who_asks
from .tables import printable

if TYPE_CHECKING:
    from cluster_lock.admin.quarantine import Breaking
    from cluster_lock.config import Settings
    from cluster_lock.driver import Driver
    from cluster_lock.values import Record

NOT_DONE, CHANGED = 1, 75
FOREIGN = (
    ", and nobody can: under its key stands what no leader wrote (`cluster-lock status` shows it)."
    " Look at it, then delete the key with the backend's own tool"
)


def add(commands: Any) -> None:
    parser: argparse.ArgumentParser = commands.add_parser(
        "release",
        help="take a lock from its holder",
        description="Take a lock from its holder by force; `step-down` asks instead, and is what you want while the"
        " leader answers. The lock is moved to a quarantine in which nobody can have it, and freed when the old leader"
        " has said that it has stopped, or after one ttl of its lease: a leader that is cut off works on until then."
        " Interrupted, or killed, this command lets nobody in earlier (with the file backend it does). Ends with 0 when"
        " the lock is free, 75 when it had changed hands in the meantime, 1 when nobody held it, or you said no.",
        examples=("telegram/123456 --force", "reports --force --yes --json"),
    )
    parser.add_argument("name", metavar="NAME", help="the lock, such as telegram/123456 (`cluster-lock status` has it)")
    parser.add_argument("--force", action="store_true", required=True, help="say that you mean it")
    parser.add_argument(
        "--now",
        action="store_true",
        help="free it at once: a leader that does not hear of it works beside the next one, for up to its ttl",
    )
    parser.add_argument("--yes", "-y", action="store_true", help="do not ask")
    add_json_option(parser)
    add_settings_options(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    if not arguments.yes and not sys.stdin.isatty():
        print("release: there is no terminal to ask at; give --yes to go ahead", file=sys.stderr)
        return 2
    return run(_release(arguments, settings_from(arguments)))


async def _release(arguments: argparse.Namespace, settings: Settings) -> int:
    from cluster_lock.admin.overview import foreign_value
    from cluster_lock.admin.quarantine import look_at

    name, timing = arguments.name, settings.timing
    async with opened(settings) as driver:
        floor = settings.fencing_floor
        breaking = await look_at(driver, name, ttl=timing.ttl, request=timing.request, fencing_floor=floor)
        if breaking is None:
            foreign = await foreign_value(driver, name, request=timing.request)
            text = f"nobody holds it{FOREIGN if foreign is not None else ''}"
            _say(arguments, f"{name}: {text}", {"result": "nobody holds it" if foreign is None else "foreign"})
            return NOT_DONE
        hit = _hit(breaking)
        print(printable(f"{name}: {_whom(hit)}"), file=sys.stderr)
        print(_risk(breaking, now=arguments.now), file=sys.stderr)
        if not arguments.yes and not _agreed():
            _say(arguments, "nothing was done", {"result": "nothing was done", "hit": hit})
            return NOT_DONE
        told = await _break(driver, breaking, _ours(), arguments, timing.request)
    if told is None:
        text = f"{name}: it changed hands in the meantime, and nothing was done; look again"
        _say(arguments, text, {"result": "changed hands", "hit": hit})
        return CHANGED
    _say(arguments, f"{name}: free, {told.pop('how')}", {"result": "released", "hit": hit} | told)
    return 0


async def _break(
    driver: Driver, breaking: Breaking, ours: Record, arguments: argparse.Namespace, request: float
) -> dict[str, Any] | None:
    from cluster_lock.admin.quarantine import break_now, break_slowly

    if arguments.now:
        done = await break_now(driver, breaking, ours, request=request)
        return {"how": "at once", "stopped": None, "seconds": 0.0} if done else None

    def moved() -> None:
        text = f"{breaking.name}: nobody can have it; waiting for its leader to stop, {breaking.ttl:g} s at most"
        print(text, file=sys.stderr, flush=True)

    broken = await break_slowly(driver, breaking, ours, request=request, moved=moved)
    if broken is None:
        return None
    reason = "the old leader has stopped" if broken.stopped else "one ttl of the old leader's lease is over"
    seconds = round(broken.seconds, 3)
    return {"how": f"{reason} ({broken.seconds:.2f} s)", "stopped": broken.stopped, "seconds": seconds}


def _ours() -> Record:
    """What stands under the lock while it is in quarantine: who looks must see that it is no leader."""
    import os
    import secrets
    import socket

    from cluster_lock import clock
    from cluster_lock.values import Record
    from cluster_lock.version import __version__

    who = who_asks()
    return Record(
        holder=f"quarantine/{who}/{os.getpid()}-{secrets.token_hex(3)}",
        instance=f"quarantine by {who}",
        host=socket.gethostname(),
        pid=os.getpid(),
        since=clock.utc_text(),
        version=__version__,
    )


def _hit(breaking: Breaking) -> dict[str, Any]:
    record = breaking.record
    who = {each: getattr(record, each, None) for each in ("instance", "host", "pid", "since")}
    term = breaking.fencing_floor + breaking.entry.index if record is not None else None
    return who | {"term": term, "lease": breaking.entry.lease}


def _whom(hit: dict[str, Any]) -> str:
    if hit["instance"] is None:
        return f"held by lease {hit['lease']}; the value that says by whom, and in which term, was overwritten"
    return f"held by {hit['instance']} on {hit['host']}, pid {hit['pid']}, since {hit['since']}, term {hit['term']}"


def _risk(breaking: Breaking, *, now: bool) -> str:
    if now:
        return (
            f"It will be free at once. A leader that does not hear of it works on, for up to {breaking.ttl:g} s, beside"
            " the next one: two that poll at the same time, updates handled twice."
        )
    return f"Its term will end, and nobody will lead for up to {breaking.ttl:g} s."


def _agreed() -> bool:
    print("Go ahead? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _say(arguments: argparse.Namespace, text: str, content: dict[str, Any]) -> None:
    if arguments.json:
        everything = {"name": arguments.name, "result": None, "hit": None, "stopped": None, "seconds": None}
        print_json(everything | content)
    else:
        print(printable(text))
