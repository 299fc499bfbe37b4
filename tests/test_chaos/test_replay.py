"""A history is replayed against the model: its first step that is not allowed is found, on histories made by hand."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from chaos.__main__ import replayed
from chaos.checker import Verdict
from chaos.faults import UNSAFE_BY_HAND
from chaos.replay import AT_ONE_MOMENT, CHECK, MODEL, hindrance, replay, steps_of
from support.aio import LONGEST
from support.docker import CHECKOUT
from support.made_histories import MadeHistory

from cluster_lock.testing.servers.tools import TOOLS_VARIABLE

pytestmark = pytest.mark.model
Spoil = Callable[[MadeHistory], None]
BAD: list[tuple[float, str, Spoil]] = []


def refused(at: float, words: str) -> Callable[[Spoil], Spoil]:
    """When the first step comes that is not allowed, and what it is."""

    def noted(spoil: Spoil) -> Spoil:
        BAD.append((at, words, spoil))
        return spoil

    return noted


def verdict_of(made: MadeHistory) -> Verdict:
    verdict = Verdict()
    replay(made.history, verdict)
    return verdict


def a_loses(made: MadeHistory, at: float = 3.0) -> None:
    made.a.events = [event for event in made.a.events if event["kind"] != "ended"]
    made.ended(made.a, at, 5, lost="the lock is not ours any more")


def b_found_it(made: MadeHistory, origin: str) -> None:
    for event in made.b.of("began"):
        event["origin"] = origin


@refused(3.1, "b#2 begins the term 9, its lock was handed over; a#1 was at work")
def work_runs_on(made: MadeHistory) -> None:
    made.run(made.update(102, seq=1, chat=2), made.a, 2.6, 3.5, 5)


@refused(3.02, "getUpdates of a#1 under 5 begins")
def work_begins_after_its_term(made: MadeHistory) -> None:
    made.poll(made.a, 3.02, 5, deadline=6.0, lasts=0.01)


@refused(0.6, "getUpdates of b#2 under no term begins")
def work_under_no_term(made: MadeHistory) -> None:
    made.poll(made.b, 0.6, None, deadline=None, lasts=0.1)


@refused(3.1, "b#2 begins the term 9, its lock was released")
def nobody_settles_after_a_loss(made: MadeHistory) -> None:
    a_loses(made)
    b_found_it(made, "released")


@refused(3.1, "b#2 begins the term 9, its lock was handed over")
def a_dead_leader_hands_over(made: MadeHistory) -> None:
    made.a.events = [event for event in made.a.events if event["kind"] != "ended"]
    made.a.ended, made.a.code = 3.05, -9


@refused(3.1, "b#2 begins the term 9, its lock was handed over")
def the_heir_was_not_there(made: MadeHistory) -> None:
    made.b.started = 3.05


@refused(6.2, "a#1 begins the term 7")
def a_token_goes_back(made: MadeHistory) -> None:
    made.began(made.a, 6.2, 7, "found free")


@refused(3.1, "b#2 begins the term 9")
def the_lock_has_moved_on(made: MadeHistory) -> None:
    made.history.stands = [{"at": 3.05, "lease": "x", "index": 11}]


@refused(3.5, "under the index 8")
def the_store_goes_back(made: MadeHistory) -> None:
    made.history.stands = [{"at": 3.3, "lease": "b", "index": 9}, {"at": 3.5, "lease": "a", "index": 8}]


@refused(3.05, "the term 5 of a#1 ends")
def a_term_ends_twice(made: MadeHistory) -> None:
    made.ended(made.a, 3.05, 5)


def test_a_good_history_is_allowed() -> None:
    """The model allows each step of a good history, and needs no excuse for it."""
    verdict = verdict_of(MadeHistory())
    assert (verdict.violations, verdict.excused) == ([], {})


@pytest.mark.parametrize(("at", "words", "spoil"), BAD, ids=lambda value: getattr(value, "__name__", ""))
def test_a_bad_one_is_refused(at: float, words: str, spoil: Spoil) -> None:
    """It is refused at the step that is bad, which is named."""
    made = MadeHistory()
    spoil(made)
    [finding] = verdict_of(made).violations
    assert (finding.check, finding.at) == (CHECK, at)
    assert words in finding.words


def taken_by_hand(made: MadeHistory) -> None:
    """The key is deleted at 2.5 s; `b` begins at 3.1 s, and `a` has heard of nothing until 3.3 s."""
    a_loses(made, at=3.3)
    b_found_it(made, "found free")


def test_what_nobody_can_make_safe_is_counted_apart() -> None:
    """Who could not hear that its lock was taken by hand works on; a token that went back has no such excuse."""
    made = MadeHistory()
    taken_by_hand(made)
    made.fault("key deleted by hand", 2.5, 2.8, excuses=list(UNSAFE_BY_HAND))
    verdict = verdict_of(made)
    assert (verdict.violations, verdict.excused) == ([], {CHECK: 1})
    a_token_goes_back(made)
    assert [finding.at for finding in verdict_of(made).violations] == [6.2]


def test_what_is_done_by_hand_alone_must_be_safe() -> None:
    """Who can hear that its lock was taken stops before the next one begins."""
    made = MadeHistory()
    taken_by_hand(made)
    made.fault("key deleted by hand", 2.5, 2.8)
    assert [finding.at for finding in verdict_of(made).violations] == [3.1]


def test_a_replica_may_be_behind() -> None:
    """After a failover the index may go back, once."""
    made = MadeHistory()
    the_store_goes_back(made)
    made.fault("store fails over to its replica", 3.2, 3.4, excuses=["index_goes_on"])
    assert verdict_of(made).violations == []


def test_a_term_of_the_round_before_goes_on() -> None:
    """Who led already when the round began needs no beginning in its diary."""
    made = MadeHistory()
    made.history.began = 0.95
    made.a.events = [event for event in made.a.events if event["kind"] != "began"]
    assert [(step.at, step.who) for step in steps_of(made.history) if step.does == "begins"] == [
        (0.95, "a#1"),
        (3.1, "b#2"),
    ]


async def test_one_in_ten() -> None:
    """A round is replayed if its seed ends in a naught, or its bots are broken, and if there is what it needs."""
    options, made = argparse.Namespace(replays=True, mutant=""), MadeHistory()
    steps = len(steps_of(made.history))
    made.history.seed = 12
    assert await replayed(options, made.history, Verdict()) == 0
    options.mutant = "anything"
    assert await replayed(options, made.history, Verdict()) == steps
    options.mutant, made.history.seed = "", 120
    assert await replayed(options, made.history, Verdict()) == steps
    options.replays = False
    assert await replayed(options, made.history, Verdict()) == 0


@pytest.fixture
def java_without_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all runs of Java would unpack what they need, nothing can be."""
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", f"-Djava.io.tmpdir={tmp_path / 'nowhere'}")


@pytest.mark.usefixtures("java_without_its_folder")
def test_runs_share_no_folder() -> None:
    """What the checker unpacks lies in a folder of each run: one that ends takes nothing away from another one."""
    assert verdict_of(MadeHistory()).violations == []
    done = subprocess.run(
        [sys.executable, str(CHECKOUT / "scripts" / "model"), "one ttl", "--workers", "1"],
        capture_output=True,
        text=True,
        timeout=LONGEST,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the model checker nothing is replayed, and one line says what to run."""
    monkeypatch.setenv(TOOLS_VARIABLE, str(tmp_path))
    assert "scripts/install-servers model" in hindrance(kept=False)
    assert "keeper" in hindrance(kept=True)


def test_the_model_knows_every_step() -> None:
    """What a history can become is what docs/model/Replay.tla can look at."""
    known = re.findall(r'step\.does = "([^"]+)"', (MODEL / "Replay.tla").read_text(encoding="utf-8"))
    assert sorted(known) == sorted(AT_ONE_MOMENT)
