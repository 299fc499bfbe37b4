"""All that is needed to understand a violation, in one folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from bot.demo.timeline import Lane, Mark, Picture

from .checker import Finding, Verdict
from .ground import Ground
from .history import History

AROUND = 1.0
"""Seconds before and after a finding whose lines are of interest."""


def keep(folder: Path, history: History, verdict: Verdict, ground: Ground) -> Path:
    """Write it; the folder is named by the backend and the seed."""
    here = folder / f"{history.backend}-{history.seed}"
    shutil.rmtree(here, ignore_errors=True)
    here.mkdir(parents=True)
    history.save(here / "history.json")
    (here / "timeline.svg").write_text(picture(history, verdict).svg())
    (here / "violations.txt").write_text(story(history, verdict))
    for index, node in enumerate(ground.store.nodes):
        (here / f"store-{index}.log").write_text(node.log_tail(2000))
    for path in ground.scene.folder.rglob("*"):
        if path.suffix in (".log", ".diary") or path.parent.name == "diaries":
            shutil.copy(path, here)
    return here


def story(history: History, verdict: Verdict) -> str:
    """The findings, each with the lines around it."""
    parts = [f"{history.backend}, seed {history.seed}", *(_fault_lines(history))]
    for finding in verdict.violations:
        parts += ["", f"== {finding.check} at {finding.at - history.began:.3f} s: {finding.words}"]
        parts += lines_around(history, finding)
    parts += [f"stray: {words}" for words in history.stray]
    return "\n".join([*parts, ""])


def _fault_lines(history: History) -> list[str]:
    began = history.began
    return [
        f"{fault.began - began:8.3f} to {fault.ended - began:.3f} s: {fault.name} ({fault.on}) {fault.detail}"
        for fault in history.faults
    ]


def lines_around(history: History, finding: Finding) -> list[str]:
    """What everybody wrote down, and what Telegram and the store saw, in the order of time."""
    lines: list[tuple[float, str]] = []
    for process in history.processes:
        for event in process.events:
            facts = {key: value for key, value in event.items() if key not in ("kind", "at") and value is not None}
            lines.append((event["at"], f"{process.client} {event['kind']} {json.dumps(facts)}"))
    for poll in history.polls:
        what = f"term {poll.term} {dict(poll.arguments)}"
        lines.append((poll.arrived, f"Telegram: getUpdates of {poll.client}, {what}"))
        if poll.ended is not None:
            lines.append((poll.ended, f"Telegram: that of {poll.arrived - history.began:.3f} {poll.end} {poll.status}"))
    lines += [(stands["at"], f"the store: {stands}") for stands in history.stands]
    near = sorted(line for line in lines if abs(line[0] - finding.at) < AROUND)
    return [f"{at - history.began:8.3f} {words}" for at, words in near]


def picture(history: History, verdict: Verdict) -> Picture:
    """A lane for each life of a bot."""
    span = (history.began, history.ended)
    lanes = []
    for process in history.processes:
        ended = process.ended if process.ended is not None else history.ended
        down = [(history.began, process.started)] if process.started > history.began else []
        down += [(ended, history.ended)] if ended < history.ended else []
        led = [(work.began, work.ended) for work in history.works if work.client == process.client]
        handled = [run.start for run in history.runs if run.client == process.client]
        lanes.append(Lane(process.client, led, down, history.frozen(process.client), handled))
    marks = [Mark(fault.began, f"{fault.name} ({fault.on})", None) for fault in history.faults]
    marks += [Mark(fault.ended, f"{fault.name} is over", None) for fault in history.faults]
    marks += [Mark(finding.at, finding.check, None) for finding in verdict.violations[:5]]
    words = "; ".join(finding.words for finding in verdict.violations[:3]) or "nothing is wrong"
    title = f"{history.backend}, seed {history.seed}"
    return Picture(title, words, not verdict.violations, span, lanes, sorted(marks, key=lambda mark: mark.at))
