"""`cluster-lock step-down`: have a leader hand over."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from .options import add_settings_options, settings_from
from .output import add_json_option, print_json, run, seconds_from, who_asks
from .tables import printable

if TYPE_CHECKING:
    from cluster_lock.admin.step_down import StepDownOutcome
    from cluster_lock.config import Settings
    from cluster_lock.session import Session
    from cluster_lock.values import Entry

NOBODY_LEADS, NOT_DONE = 1, 75

_WHO = ("instance", "host", "pid")
"""Of a process: another one may bear the same instance's name."""

PATIENCE = 10.0
"""Seconds beyond the drain and its grace: for the way there, for invitations, and for what the leader is slower in."""


def add(commands: Any) -> None:
    parser: argparse.ArgumentParser = commands.add_parser(
        "step-down",
        help="have the leader hand over",
        description="Ask the leader of a lock, over the backend, to hand over to a standby in good order: it goes on"
        " working until one has said yes, then finishes what is under way. Waits and says who leads. Ends with 0 when"
        " another one leads, 75 when the leader declined or did not answer in time, 1 when nobody leads.",
        examples=("", "telegram/123456 --to web-2"),
    )
    parser.add_argument(
        "name",
        nargs="?",
        metavar="NAME",
        help="the lock, such as telegram/123456 (`cluster-lock status` has it); may be left out when only one is led",
    )
    parser.add_argument("--to", metavar="INSTANCE", help="hand over to this standby or not at all")
    parser.add_argument(
        "--timeout",
        type=seconds_from,
        metavar="SECONDS",
        help="how long to wait for the next leader (default: the drain and 10 more)",
    )
    add_json_option(parser)
    add_settings_options(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    return run(_step_down(arguments, settings_from(arguments)))


async def _step_down(arguments: argparse.Namespace, settings: Settings) -> int:
    from cluster_lock.admin.step_down import ask_to_step_down
    from cluster_lock.session import open_session

    timing = settings.timing
    timeout = arguments.timeout or timing.drain + timing.cancel_grace + PATIENCE
    async with open_session(settings, fail_fast=True) as session:
        name = arguments.name or await _only_one(session)
        outcome = await ask_to_step_down(session, name, to=arguments.to, by=who_asks(), timeout=timeout)
    told = _told(name, arguments.to, outcome, settings.fencing_floor)
    if arguments.json:
        print_json(told)
    else:
        print(printable(_sentence(told)), file=sys.stdout if told["result"] == "handed over" else sys.stderr)
    return {"handed over": 0, "nobody leads": NOBODY_LEADS}.get(told["result"], NOT_DONE)


async def _only_one(session: Session) -> str:
    """The lock that is led, when no other one is. Raises ConfigError."""
    from cluster_lock.admin.overview import look
    from cluster_lock.errors import ConfigError

    overview = await look(session.driver, request=session.timing.request)
    led = [lock.name for lock in overview.locks if lock.lease is not None]
    if len(led) == 1:
        return led[0]
    raise ConfigError([f"NAME: say which lock, of {', '.join(map(printable, led)) or 'none that is led'}"])


def _told(name: str, to: str | None, outcome: StepDownOutcome | None, fencing_floor: int) -> dict[str, Any]:
    """The documented object."""
    told: dict[str, Any] = {"name": name, "result": "nobody leads", "reason": None, "before": None, "leader": None}
    if outcome is None:
        return told | {"seconds": None, "gap": None}
    before, after = _leader(outcome.before, fencing_floor), _leader(outcome.after, fencing_floor)
    gap = None if outcome.gap is None else round(outcome.gap, 4)
    told |= {"before": before, "leader": after, "seconds": round(outcome.seconds, 4), "gap": gap}
    if outcome.declined is not None:
        return told | {"result": "declined", "reason": outcome.declined}
    if outcome.timed_out or after is None:
        return told | {"result": "no answer"}
    if before is not None and all(after[each] == before[each] for each in _WHO):
        return told | {"result": "leads again"}
    return told | {"result": "handed over" if to in (None, after["instance"]) else "another one leads"}


def _leader(entry: Entry | None, fencing_floor: int) -> dict[str, Any] | None:
    from cluster_lock.values import Record

    if entry is None or entry.lease is None:
        return None
    record = Record.from_bytes(entry.record or b"")
    who = {each: getattr(record, each, None) for each in _WHO}
    return who | {"term": fencing_floor + entry.index}


def _sentence(told: dict[str, Any]) -> str:
    name, leader, result = told["name"], told["leader"], told["result"]
    if result == "nobody leads":
        return f"{name}: nobody leads it, so there is nobody to ask"
    who = (
        f"{leader['instance']} on {leader['host']}, pid {leader['pid']}, term {leader['term']}" if leader else "nobody"
    )
    was = told["before"]["instance"] or "the leader"
    if result == "declined":
        return f"{name}: {was} declined and leads on: {told['reason']}"
    if result == "no answer":
        return f"{name}: {was} did not hand over within {told['seconds']:g} s; now leads: {who}"
    gap = f", gap {told['gap'] * 1000:.0f} ms" if told["gap"] is not None else ""
    how = f"({told['seconds']:.2f} s after the request{gap})"
    if result == "handed over":
        return f"{name}: {was} handed over to {who} {how}"
    return f"{name}: {was} stepped down, but now leads: {who} {how}"
