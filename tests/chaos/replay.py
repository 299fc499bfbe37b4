"""A history, replayed against the model of the protocol (docs/model): the first step that it does not allow is a
finding.

The history becomes a list of steps, in the order of the boot clock, each of them one of docs/model/Seen.tla; the model
checker says how many of them are allowed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from support.docker import CHECKOUT

from cluster_lock.testing.servers.tools import TOOLS_VARIABLE, ServerMissing
from cluster_lock.values import Origin

from .checker import Finding, Verdict
from .history import History, Json, Process
from .nemesis import KINDS
from .on_bots import RollingUpgrade
from .on_store import Restored

ONE_IN = 10
"""Of so many rounds one is replayed."""
CHECK = "not_in_the_model"
MODEL = CHECKOUT / "docs" / "model"
WITHIN = 120.0
ORIGINS = {Origin.HANDED_OVER: "given", Origin.RELEASED: "released"}
"""What the model calls them. After any other one, "free", work settles."""
AT_ONE_MOMENT = ("starts", "back", "deaf", "by hand", "finishes", "ends", "dies", "begins", "takes", "stands")
"""What comes first when the clock cannot tell."""


@dataclass(frozen=True, slots=True)
class Step:
    """`does`: as docs/model/Replay.tla knows it. `number`: a token, or an index. `words`: for people."""

    at: float
    does: str
    words: str
    who: str = ""
    number: int = 0
    word: str = ""


class ModelFailed(Exception):
    """The model checker did not come to an answer."""


def hindrance(*, kept: bool) -> str:
    """Why nothing can be replayed here; empty if it can be."""
    if kept:
        return "the model knows of no keeper"
    try:
        model_checker()
    except ServerMissing as error:
        return str(error)
    return ""


def is_modelled(history: History) -> bool:
    """After a restore tokens may be seen to go back, and nobody outside can say from when on. And the model has the
    rules of this version alone."""
    return not any(fault.name in (Restored.name, RollingUpgrade.name) for fault in history.faults)


def replay(history: History, verdict: Verdict) -> int:
    """Add what the model says of it; how many steps it has."""
    steps = steps_of(history)
    allowed, apart = asked(history, steps)
    if apart:
        verdict.excused[CHECK] += apart
    if allowed < len(steps):
        step = steps[allowed]
        when = f"at {step.at - history.began:.3f} s, in step {allowed + 1} of {len(steps)}"
        others = ", ".join(sorted(at_work(steps[:allowed]) - {step.who})) or "nobody else"
        # The first one: what comes after it may be no more than its consequence.
        verdict.violations.insert(0, Finding(CHECK, step.at, f"{when}: {step.words}; {others} was at work"))
    return len(steps)


def at_work(steps: list[Step]) -> set[str]:
    """Who is after these steps."""
    changes = {"begins": 1, "takes": 1, "ends": -1, "finishes": -1}
    busy = Counter[str]()
    for step in steps:
        busy[step.who] = 0 if step.does == "dies" else busy[step.who] + changes.get(step.does, 0)
    return {who for who, pieces in busy.items() if pieces}


# -- from a history to steps


def steps_of(history: History) -> list[Step]:
    """In the order in which they happened."""
    steps = [*_lives(history), *_terms(history), *_work(history)]
    begins = [step.at for step in steps if step.does == "begins"]
    steps += [*_store(history), *_by_hand(history, begins)]
    return sorted(steps, key=lambda step: (step.at, AT_ONE_MOMENT.index(step.does)))


def _lives(history: History) -> Iterator[Step]:
    for process in history.processes:
        who = process.client
        if process.started > history.began:
            yield Step(process.started, "starts", f"{who} starts", who)
        if process.ended is not None:
            yield Step(process.ended, "dies", f"{who} ends, code {process.code}", who)


def _terms(history: History) -> Iterator[Step]:
    for process in history.processes:
        who = process.client
        for term, (at, origin) in _begun(history, process).items():
            word = ORIGINS.get(Origin(origin), "free")
            yield Step(at, "begins", f"{who} begins the term {term}, its lock was {origin}", who, term, word)
        for event in process.of("ended"):
            how = "lost" if event["lost"] is not None else "good"
            yield Step(event["at"], "ends", f"the term {event['term']} of {who} ends: {how}", who, event["term"], how)


def _begun(history: History, process: Process) -> dict[int, tuple[float, str]]:
    """The terms of a process: when each began, and how its lock came about. One that nobody saw begin is older than
    the round."""
    first: dict[int, Json] = {}
    for event in process.events:
        if event.get("term"):
            first.setdefault(event["term"], event)
    origins = {event["term"]: event["origin"] for event in process.of("began")}
    return {
        term: (event["at"], origins[term]) if term in origins else (history.began, Origin.FOUND_FREE)
        for term, event in first.items()
    }


def _work(history: History) -> Iterator[Step]:
    for work in history.pieces:
        what = f"{work.last} of {work.client} under {work.term or 'no term'}"
        yield Step(work.began, "takes", f"{what} begins", work.client, work.term)
        yield Step(work.ended, "finishes", f"{what} ends", work.client)


def _store(history: History) -> Iterator[Step]:
    """A replica that was behind is known by an index that went back, or it was not behind."""
    failovers = [fault for fault in history.faults if "index_goes_on" in fault.excuses]
    for fault in failovers:
        yield Step(fault.ended, "back", fault.name)
    last = 0
    for stands in history.stands:
        at, index = stands["at"], stands["index"]
        if index < last and any(fault.began < at for fault in failovers):
            yield Step(at, "back", "the store's index goes back")
        last = index
        yield Step(at, "stands", f"the lock stands in the store under the index {index}", number=index)


def _by_hand(history: History, begins: list[float]) -> Iterator[Step]:
    """A person takes the lock from whoever has it at some moment of the fault. While something else goes on as well its
    holder may not hear of that: nobody can make it safe."""
    for fault in history.faults:
        kind = KINDS.get(fault.name)
        if kind is not None and kind.by_hand:
            if "overlapping_work" in fault.excuses:
                yield Step(fault.began, "deaf", "nobody may hear of it")
            for at in (fault.began, *(at for at in begins if fault.began < at <= fault.ended)):
                yield Step(at, "by hand", fault.name)


# -- from steps to an answer


def asked(history: History, steps: list[Step]) -> tuple[int, int]:
    """How many of the steps the model allows, from the first on, and how many of these only because of an excuse."""
    jar = model_checker()
    with tempfile.TemporaryDirectory(prefix="replay-") as folder:
        for module in ("Seen.tla", "Replay.tla"):
            shutil.copy(MODEL / module, folder)
        (Path(folder) / "Recorded.tla").write_text(recorded(history, steps))
        (Path(folder) / "Replay.cfg").write_text("SPECIFICATION Replayed\nCONSTANT Clients <- Everybody\n")
        # It unpacks its own modules there, by fixed names, and at its end deletes those of all who share the folder.
        java = ["java", f"-Djava.io.tmpdir={folder}", "-Xmx1g", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        # The bots go on meanwhile: the processor is theirs.
        tlc = ["-cp", str(jar), "tlc2.TLC", "-workers", "1", "-deadlock", "-checkpoint", "0", "Replay"]
        command = ["nice", *java, *tlc]
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=WITHIN, check=False)
        except subprocess.TimeoutExpired as error:
            raise ModelFailed(f"the model checker did not end within {WITHIN:g} s") from error
    depth = re.search(r"depth of the complete state graph search is (\d+)", done.stdout)
    if "No error has been found" not in done.stdout or depth is None:
        raise ModelFailed(f"the model checker said: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return int(depth[1]) - 1, len(set(re.findall(r'"counted apart", (\d+)', done.stdout)))


def model_checker() -> Path:
    """The jar of the model checker. ServerMissing if it, or Java, is not here."""
    jar = Path(os.environ.get(TOOLS_VARIABLE) or CHECKOUT / ".tools") / "tla2tools.jar"
    if not jar.is_file() or shutil.which("java") is None:
        raise ServerMissing("the model checker is not installed: run 'scripts/install-servers model'")
    return jar


def recorded(history: History, steps: list[Step]) -> str:
    """The steps as a module. Its numbers are small, so tokens and indexes have their rank instead."""
    ranks = {number: rank for rank, number in enumerate(sorted({0, *(step.number for step in steps)}))}
    up = [process.client for process in history.processes if process.started <= history.began]
    everybody = {*(process.client for process in history.processes), *(step.who for step in steps if step.who)}
    does = [
        f'[does |-> "{step.does}", who |-> "{step.who}", number |-> {ranks[step.number]}, word |-> "{step.word}"]'
        for step in steps
    ]
    return "\n".join(
        (
            "---- MODULE Recorded ----",
            f"Everybody == {{{_names(everybody)}}}",
            f"WereUp == {{{_names(up)}}}",
            "Steps == <<",
            ",\n".join(does),
            ">>",
            "====",
            "",
        )
    )


def _names(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in sorted(names))
