"""Whatever goes wrong in whatever order: never two at work, tokens that only grow, and nothing that stays behind."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.schedules import TRUST, History, Work, play, problems

from cluster_lock.session.session_lease import SessionLease

pytestmark = pytest.mark.slow

SEEDS = 20


@pytest.mark.parametrize("seed", range(SEEDS))
def test_schedules(seed: int) -> None:
    """In a random schedule of faults, no two terms of a lock are at work at once, tokens grow, somebody leads again
    after each trouble, and in the end no lease, key, task or unseen error is left."""
    history = play(seed)
    assert len(history.works) > 5, "nothing was tried"
    assert list(problems(history)) == []


def work(token: int, first: float, last: float, name: str = "x") -> Work:
    return Work(name, f"i{token}", token, granted=first, first=first, last=last)


BAD: dict[str, tuple[History, str]] = {
    "two at once": (
        History(works=[work(1, 0, 10), work(2, 9, 12)]),
        "i1 (1) worked until 10.000, and i2 (2) from 9.000 on",
    ),
    "one inside the other": (
        History(works=[work(1, 0, 10), work(2, 3, 4)]),
        "i1 (1) worked until 10.000, and i2 (2) from 3.000 on",
    ),
    "a third that overlaps the first": (
        History(works=[work(1, 0, 10), work(2, 10, 11), work(3, 9.5, 9.6)]),
        "and i3 (3) from 9.500 on",
    ),
    "broken, and worked on for too long": (
        History(works=[work(1, 0, 10 + TRUST), work(2, 5, 20 + TRUST)], breaks=[(4, "x")]),
        "worked until",
    ),
    "another lock was broken": (
        History(works=[work(1, 0, 6), work(2, 5, 20)], breaks=[(4, "y")]),
        "worked until",
    ),
    "broken only after the second had begun": (
        History(works=[work(1, 0, 6), work(2, 4, 20)], breaks=[(5, "x")]),
        "worked until",
    ),
    "the first to get it begins when the second has ended": (
        History(works=[Work("x", "i1", 1, granted=0, first=20, last=21), work(2, 5, 10)]),
        "i1 (1) worked until 21.000",
    ),
    "a token twice": (History(works=[work(3, 0, 1), work(3, 2, 3)]), "token 3 of i3 came after 3"),
    "a token that fell": (History(works=[work(3, 0, 1), work(2, 2, 3)]), "token 2 of i2 came after 3"),
    "nobody leads": (History(works=[work(1, 0, 10)], must_lead_at=[(30, "x")]), "nobody was at work at 30.000"),
    "another lock is led": (
        History(works=[work(1, 0, 40, "y")], must_lead_at=[(30, "x")]),
        "nobody was at work at 30.000",
    ),
    "something is left": (History(complaints=["a lease of a is left"]), "a lease of a is left"),
}


@pytest.mark.parametrize(("history", "problem"), BAD.values(), ids=BAD.keys())
def test_the_checker_sees_it(history: History, problem: str) -> None:
    """Each history that was made wrong by hand is found to be wrong, in words that say how."""
    assert any(problem in found for found in problems(history)), list(problems(history))


GOOD: dict[str, History] = {
    "one after the other": History(works=[work(1, 0, 10), work(2, 10, 20)], must_lead_at=[(15, "x")]),
    "locks beside each other": History(works=[work(2, 0, 10), work(1, 5, 20, "y")]),
    "broken, and given back by a restore": History(
        works=[work(1, 0, 9 + 2 * TRUST), work(2, 4.3, 6)], breaks=[(4, "x"), (7, "x")]
    ),
    "broken by a person, within the limit": History(works=[work(1, 0, 9), work(2, 4.3, 20)], breaks=[(4, "x")]),
}


@pytest.mark.parametrize("history", GOOD.values(), ids=GOOD.keys())
def test_the_checker_lets_it_pass(history: History) -> None:
    """What may be is found to be right."""
    assert list(problems(history)) == []


def test_a_schedule_hears_what_is_only_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that fails and that nobody looks at, and a lease that is not given up, are problems of a schedule."""

    async def fails() -> None:
        raise RuntimeError("a bug")

    async def gives_nothing_up(*_: Any) -> None:
        asyncio.get_running_loop().create_task(fails())

    monkeypatch.setattr(SessionLease, "give_up", gives_nothing_up)
    found = list(problems(play(0, rounds=1)))
    assert any("is left" in problem for problem in found)
    assert any("a bug" in problem for problem in found)
