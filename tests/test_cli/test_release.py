"""`cluster-lock release --force` on real servers: nobody leads before the old leader has stopped."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from support.aio import PATIENCE, until
from support.company import Company, Member
from support.proxy import Proxy
from support.stores import SERVERS

from cluster_lock import clock
from cluster_lock.values import Origin, Timing

PATIENT = Timing(ttl=6.0, margin=1.5, stop_time=0.5, settle=0.25, drain=1.0, cancel_grace=0.5)
"""For what must happen before a lease that is renewed no more is over, on a busy machine too."""


def told(company: Company, capsys: pytest.CaptureFixture[str], *arguments: str, code: int) -> dict[str, Any]:
    assert company.command("release", "x", "--force", "--yes", "--json", *arguments) == code
    content: dict[str, Any] = json.loads(capsys.readouterr().out)
    return content


def test_a_connected_leader(company: Company, capsys: pytest.CaptureFixture[str]) -> None:
    """A leader that hears of it stops and says so: the lock is free before its ttl is over; and it is said whom that
    hit."""
    first, second = company.join("web-1"), company.join("web-2")
    content = told(company, capsys, code=0)
    assert (content["result"], content["stopped"]) == ("released", True)
    assert content["hit"]["instance"] == "web-1"
    assert content["hit"]["term"] == first.terms[0].fencing_token
    assert 0 < content["seconds"] < company.timing.ttl
    leads_again(first, second)


def leads_again(*members: Member) -> Member:
    """The one that leads next: it found the lock free, so it settles, and its token is larger."""
    give_up = clock.now() + 20
    while clock.now() < give_up:
        for member in members:
            if member.leading.wait(0.05) and (term := member.terms[-1]).origin is Origin.FOUND_FREE and term.is_valid():
                return member
    raise AssertionError("nobody leads")


class CutOff:
    """A member whose way to the server goes over a proxy that can swallow everything."""

    def __init__(self, company: Company) -> None:
        direct = company.backend
        self.company, self.proxy = company, Proxy("127.0.0.1", direct.port)
        company.enter(self.proxy)
        company.backend = direct.by_way_of(self.proxy.port)
        self.member = company.join("web-1")
        company.backend = direct

    def cut(self) -> None:
        self.company.call(self.proxy.black_hole)

    def heal(self) -> None:
        self.company.call(self.proxy.heal)


@pytest.fixture
def cut_off(company: Company) -> Iterator[CutOff]:
    cut_off = CutOff(company)
    yield cut_off
    cut_off.heal()


@pytest.mark.parametrize("timing", [PATIENT])
@pytest.mark.parametrize("backend", SERVERS, indirect=True, scope="session")
def test_a_leader_that_is_cut_off(company: Company, cut_off: CutOff, capsys: pytest.CaptureFixture[str]) -> None:
    """While the leader cannot hear of it, nobody else leads before one ttl is over, and by then it has stopped."""
    second = company.join("web-2")
    cut_off.cut()
    begun = clock.now()
    content = told(company, capsys, code=0)
    assert (content["stopped"], content["hit"]["instance"]) == (False, "web-1")
    assert content["seconds"] >= company.timing.ttl
    assert second.leading.wait(PATIENCE)
    assert cut_off.member.stopped.is_set()
    assert second.terms[0].origin is Origin.FOUND_FREE
    assert second.terms[0].since >= begun + company.timing.ttl


@pytest.mark.parametrize("timing", [PATIENT])
@pytest.mark.parametrize("backend", SERVERS, indirect=True, scope="session")
def test_at_once(company: Company, cut_off: CutOff, capsys: pytest.CaptureFixture[str]) -> None:
    """--now lets the next one lead while the old one, cut off, still works: what it says that it risks."""
    second = company.join("web-2")
    cut_off.cut()
    assert company.command("release", "x", "--force", "--now", "--yes") == 0
    assert second.leading.wait(PATIENCE)
    assert not cut_off.member.stopped.is_set()
    printed = capsys.readouterr()
    assert "two that poll at the same time" in printed.err
    assert printed.out == "x: free, at once\n"
    assert cut_off.member.stopped.wait(PATIENCE)


@pytest.mark.parametrize("timing", [PATIENT])
@pytest.mark.parametrize("backend", SERVERS, indirect=True, scope="session")
def test_a_command_that_is_interrupted(company: Company, cut_off: CutOff) -> None:
    """A command that is interrupted in the quarantine frees nothing: nobody leads before a ttl is over."""
    second = company.join("web-2")
    moved: list[float] = []

    def interrupt() -> None:
        company.do(until(quarantined))
        moved.append(clock.now())
        os.kill(os.getpid(), signal.SIGINT)

    async def quarantined() -> bool:
        (entry,) = await second.session.driver.scan("leader/x")
        return b"quarantine by" in (entry.record or b"")

    interrupting = threading.Thread(target=interrupt)
    cut_off.cut()
    interrupting.start()
    assert company.command("release", "x", "--force", "--yes") == 130
    interrupting.join(10)
    assert second.leading.wait(PATIENCE)
    assert second.terms[0].since >= moved[0] + company.timing.ttl - 0.5  # it was moved some time before we saw it
    assert cut_off.member.stopped.is_set()


def test_it_is_shown_as_a_quarantine(company: Company, capsys: pytest.CaptureFixture[str]) -> None:
    """While the lock is in quarantine, `status` says so, and by whom."""
    member = company.join("web-1", "another")
    hold = company.do(member.session.lock("x").acquire())  # which never stands by again, so it never says "stopped"
    releasing = threading.Thread(target=company.command, args=("release", "x", "--force", "--yes"))
    releasing.start()
    assert company.do(hold.wait_lost())
    assert company.command("status", "x", "--json") == 0
    releasing.join(20)
    printed = capsys.readouterr().out
    (lock,) = json.loads(printed[: printed.rindex("}") + 1])["locks"]
    assert lock["leader"].startswith("quarantine by ")
    company.do(hold.end({}))


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("yes\n", 0), ("n\n", 1), ("\n", 1), ("", 1)])
def test_it_asks(
    company: Company, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, answer: str, code: int
) -> None:
    """At a terminal it names whom it will hit and what that means, and goes ahead with a yes only."""
    first = company.join("web-1")
    terminal = io.StringIO(answer)
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", terminal)
    assert company.command("release", "x", "--force") == code
    printed = capsys.readouterr()
    assert "x: held by web-1 on " in printed.err
    assert f"nobody will lead for up to {company.timing.ttl:g} s" in printed.err
    assert (first.terms[0].ended is None) == (code == 1)


def test_without_a_terminal(
    company: Company, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a terminal and without --yes it refuses; without --force it is a wrong argument."""
    first = company.join("web-1")
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert company.command("release", "x", "--force") == 2
    assert "give --yes" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        company.command("release", "x", "--yes")
    assert ended.value.code == 2
    assert first.leading.is_set()


def test_nobody_holds_it(company: Company, capsys: pytest.CaptureFixture[str]) -> None:
    """A lock that nobody holds is not released: 1."""
    assert told(company, capsys, code=1)["result"] == "nobody holds it"
