"""What a person sees while the demo runs."""

from __future__ import annotations

from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cluster_lock import clock

from .changes import DemoChange, changes_of
from .instance import Instance
from .stage import Stage

ROLE_STYLE = {"leader": "bold green", "standby": "cyan", "starting": "yellow", "stopped": "red", "silent": "red"}
LEASE_WIDTH = 12


class View(Protocol):
    """`say` is one line of progress, `show` the state of everything."""

    def say(self, words: str) -> None: ...

    def show(self, stage: Stage) -> None: ...

    def close(self) -> None: ...


class Silent:
    """For JSON."""

    def say(self, words: str) -> None: ...

    def show(self, stage: Stage) -> None: ...

    def close(self) -> None: ...


class TableLines:
    """For an output that is no terminal: one line for each change."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown: set[float] = set()

    def say(self, words: str) -> None:
        self._console.print(words, highlight=False, soft_wrap=True)

    def show(self, stage: Stage) -> None:
        for change in changes(stage):
            if is_over(change) and change.at not in self._shown:
                self._shown.add(change.at)
                self._console.print(event_line(change, stage.began), highlight=False, soft_wrap=True)

    def close(self) -> None: ...


class LiveTable:
    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False, transient=False)
        self._words = ""
        self._live.start()

    def say(self, words: str) -> None:
        self._words = words
        self._live.update(Text(words), refresh=True)

    def show(self, stage: Stage) -> None:
        self._live.update(screen(stage, self._words), refresh=True)

    def close(self) -> None:
        self._live.stop()


def screen(stage: Stage, words: str) -> RenderableType:
    plan = stage.plan
    elapsed = "" if stage.began is None else f", {clock.now() - stage.began:.1f} s"
    title = f"{plan.instances} instances on {plan.backend}{elapsed}"
    table = Table(title=title, title_style="bold", title_justify="left", min_width=66)
    table.add_column("instance")
    table.add_column("pid", justify="right")
    table.add_column("role", min_width=8)
    table.add_column("term", justify="right", min_width=4)
    table.add_column("lease left", min_width=LEASE_WIDTH + 7)
    table.add_column("handled", justify="right")
    for instance in stage.fleet.instances:
        table.add_row(*_row(instance, plan.timing.ttl - plan.timing.margin - plan.timing.stop_time))
    lines = [event_line(change, stage.began) for change in changes(stage)]
    last = f"waiting for {stage.waiting_for}" if stage.waiting_for else words
    return Group(table, _counts(stage), *lines, Text(last, style="dim"))


def changes(stage: Stage) -> list[DemoChange]:
    return changes_of(stage.faults, stage.simulator.oracle.changes())


def is_over(change: DemoChange) -> bool:
    return change.gap_ms is not None or (change.fault is not None and change.fault.ended is not None)


def event_line(change: DemoChange, began: float | None) -> Text:
    line = Text(f"{change.at - (began or change.at):6.1f} s  ")
    line.append(f"{change.kind:<16}", style="bold")
    line.append(f"{change.words}: ")
    if change.passed is not None and change.gap_ms is not None:
        line.append(f"{name(change.passed.new)} leads", style="green")
        line.append(f", nobody polled for {change.gap_ms:.0f} ms")
    elif is_over(change):
        line.append(change.fault.outcome if change.fault is not None else "", style="green")
    else:
        line.append("...", style="yellow")
    return line


def name(client: str) -> str:
    """The instance of a client."""
    return client.partition("#")[0]


def _row(instance: Instance, longest: float) -> tuple[RenderableType, ...]:
    role = instance.role
    status = instance.status
    leads = role == "leader" and status is not None and status.term is not None
    return (
        instance.name,
        str(instance.pid) if instance.is_running else "-",
        Text(role, style=ROLE_STYLE.get(role, "dim")),
        str(status.term) if leads and status is not None else "",
        _lease(instance.left, longest) if instance.deadline else "",
        str(instance.handled),
    )


def _lease(left: float, longest: float) -> Text:
    full = round(LEASE_WIDTH * min(left / longest, 1.0))
    style = "green" if left > longest / 3 else "red"
    return Text.assemble(("█" * full, style), ("░" * (LEASE_WIDTH - full), "dim"), f" {left:4.1f} s")


def _counts(stage: Stage) -> Text:
    report = stage.simulator.oracle.report(drained=False, at_most=0)
    counts = f"{report.updates_sent} sent, {report.updates_handled} handled, {report.pending} on their way"
    text = Text(f"updates: {counts}, ")
    text.append(f"{report.duplicated} twice\n", style="yellow" if report.duplicated else "")
    for what, count in (
        ("lost", report.lost),
        ("out of order", report.out_of_order),
        ("overlapping polls", report.overlapping_polls),
        ("conflicts", report.conflicts_live),
    ):
        text.append(f"{count} {what}   ", style="bold red" if count else "green")
    return text
