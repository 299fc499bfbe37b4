"""`python -m bot demo`: its options, and what it prints."""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import math
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .plan import BACKENDS, Configured, DemoPlan

if TYPE_CHECKING:
    from .harness import DemoOutcome

NOT_OK = 1
NO_SERVER = 69
INTERRUPTED = 130
SHORTEST, LONGEST = 5.0, 600.0
MOST_INSTANCES = 20
NEEDED = "aiogram", "aiohttp", "rich"


def add(commands: Any) -> None:
    """Add the command to an ArgumentParser's sub-parsers."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "demo",
        help="see it work: several processes, every fault, a simulated Telegram",
        description="Run several instances of a bot against a simulated Telegram, hand over, kill, stop and starve the"
        " leader, and show that no update is lost and never two of them poll.",
    )
    parser.add_argument(
        "--backend", choices=BACKENDS, help="where the lock is kept (default: what --config says, else file)"
    )
    parser.add_argument("--instances", type=_instances, default=3, metavar="N", help="processes (default: 3)")
    parser.add_argument(
        "--seconds",
        type=_from(SHORTEST, LONGEST, "seconds"),
        default=20.0,
        metavar="S",
        help="how long updates come, at least (default: 20)",
    )
    parser.add_argument(
        "--rate",
        type=_from(1, 500, "updates a second"),
        default=20.0,
        metavar="R",
        help="updates a second (default: 20)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="use the etcd or Consul that this configuration names, not an own one",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """0 if all was well, 1 if not, 69 if the backend's server is missing. Raises ConfigError."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        return _complain(f"the demo needs {' and '.join(missing)}: pip install 'cluster-lock[all]'", NO_SERVER)
    from cluster_lock.testing.servers import ServerFailed, ServerMissing

    from .fleet import DemoFailed

    try:
        outcome = asyncio.run(_demo(options))
    except (ServerMissing, ServerFailed) as error:
        return _complain(str(error), NO_SERVER)
    except DemoFailed as error:
        return _complain(str(error), NOT_OK)
    except (KeyboardInterrupt, asyncio.CancelledError):
        return _complain("stopped, and everything with it", INTERRUPTED)
    if options.json:
        print(json.dumps(outcome.verdict.as_json()))
    else:
        _tell(outcome)
    if not outcome.verdict.ok:
        logs = f"the logs of the instances are in {outcome.logs}"
        return _complain("\n".join([*outcome.verdict.problems, logs] if options.json else [logs]), NOT_OK)
    return 0


async def _demo(options: argparse.Namespace) -> DemoOutcome:
    from rich.console import Console

    from . import harness, table
    from .servers import chosen_backend, is_configured

    backend = options.backend or chosen_backend(options.config)
    plan = DemoPlan(
        backend=backend,
        instances=options.instances,
        seconds=options.seconds,
        rate=options.rate,
        config=Configured(options.config) if is_configured(backend, options.config) else None,
    )
    console = Console()
    view: table.View = table.Silent()
    if not options.json:
        view = table.LiveTable(console) if console.is_terminal else table.TableLines(console)
    task = asyncio.current_task()
    if task is not None and sys.platform != "win32":
        for number in (signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        return await harness.run(plan, view)
    finally:
        view.close()


def _tell(outcome: DemoOutcome) -> None:
    verdict = outcome.verdict
    path = Path(f"demo-{verdict.backend}.svg")
    try:
        path.write_text(outcome.picture.svg(), encoding="utf-8")
    except OSError:
        path = Path(tempfile.mkdtemp(prefix="cluster-lock-")) / path
        path.write_text(outcome.picture.svg(), encoding="utf-8")
    report = verdict.report
    print(
        f"\n{report.updates_sent} updates sent, {report.updates_handled} handled, {report.lost} lost,"
        f" {report.duplicated} handled twice, {report.out_of_order} out of order\n"
        f"{report.overlapping_polls} overlapping polls, {report.conflicts_live} conflicts that a live poller got,"
        f" {report.late_arrivals} late arrivals"
    )
    for problem in verdict.problems:
        print(f"NOT OK: {problem}")
    if verdict.ok:
        print("OK: at no moment two pollers, no update lost, every chat in order" + _doubles(report.duplicated))
    print(f"who led when: {path.absolute()}")


def _doubles(count: int) -> str:
    return f"\n    ({count} came twice, as they may when a leader dies before it could confirm them)" if count else ""


def _complain(text: str, code: int) -> int:
    print(text, file=sys.stderr)
    return code


def _from(low: float, high: float, what: str) -> Callable[[str], float]:
    def number(text: str) -> float:
        try:
            found = float(text)
        except ValueError:
            found = math.nan
        if not low <= found <= high:
            raise argparse.ArgumentTypeError(f"must be from {low:g} to {high:g} {what}, but is {text!r}")
        return found

    return number


def _instances(text: str) -> int:
    if not text.isdecimal() or not 2 <= int(text) <= MOST_INSTANCES:
        raise argparse.ArgumentTypeError(
            f"must be from 2 (one alone has nobody to hand over to) to {MOST_INSTANCES}, but is {text!r}"
        )
    return int(text)
