"""`cluster-lock step-down` on real servers: the leader hands over, or says why it does not."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
from support.aio import PATIENCE
from support.backends import Backend
from support.company import Company, write_config
from support.stores import CONSUL, SERVERS, open_driver

from cluster_lock.cli import main
from cluster_lock.testing.servers.base import free_ports
from cluster_lock.values import REPLY, REQUEST, Origin


def told(company: Company, capsys: pytest.CaptureFixture[str], *arguments: str, code: int) -> dict[str, Any]:
    assert company.command("step-down", "x", "--json", *arguments) == code
    content: dict[str, Any] = json.loads(capsys.readouterr().out)
    return content


@pytest.mark.parametrize("to", [None, "web-3"])
def test_the_leader_hands_over(company: Company, capsys: pytest.CaptureFixture[str], to: str | None) -> None:
    """The leader drains and hands over, to the first standby or to the one named; the command waits, and says who leads
    in which term, after how long, and how long nobody took new work."""
    first = company.join("web-1", work=0.3)
    second, third = company.join("web-2"), company.join("web-3")
    content = told(company, capsys, *(["--to", to] if to else []), code=0)
    heir = third if to else second
    assert heir.leading.wait(PATIENCE)
    assert heir.terms[0].origin is Origin.HANDED_OVER
    assert (content["result"], content["reason"]) == ("handed over", None)
    assert content["before"]["instance"] == "web-1"
    assert content["before"]["term"] == first.terms[0].fencing_token
    assert (content["leader"]["instance"], content["leader"]["term"]) == (to or "web-2", heir.terms[0].fencing_token)
    assert 0.25 <= content["gap"] <= content["seconds"] < company.timing.drain + 3
    assert len(first.terms) == 1


def test_it_says_so_in_a_sentence(company: Company, capsys: pytest.CaptureFixture[str]) -> None:
    """For people it is one line, on stdout when another one leads and on stderr when not."""
    company.join("web-1")
    assert company.command("step-down", "x") == 75
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("x: web-1 declined and leads on: nobody stands by")
    second = company.join("web-2")
    assert company.command("step-down", "x") == 0
    assert capsys.readouterr().out.startswith("x: web-1 handed over to web-2 on ")
    assert second.leading.wait(PATIENCE)


def test_the_only_lock_needs_no_name(company: Company, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a name the only lock that is led is meant; where none is, or two are, it is asked for (78)."""
    assert company.command("step-down") == 78
    assert "NAME: say which lock, of none that is led" in capsys.readouterr().err
    company.join("web-1")
    assert company.command("step-down") == 75
    assert capsys.readouterr().err.startswith("x: web-1 declined")
    company.join("web-2", "y")
    assert company.command("step-down") == 78
    assert "NAME: say which lock, of x, y" in capsys.readouterr().err


def test_another_process_of_the_same_name(
    company: Company, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who leads next is another one, also if it bears the same instance's name."""
    company.join("web")
    monkeypatch.setattr(socket, "gethostname", lambda: "another-host")
    second = company.join("web")
    content = told(company, capsys, code=0)
    assert second.leading.wait(PATIENCE)
    assert (content["result"], content["leader"]["host"]) == ("handed over", "another-host")


@pytest.mark.parametrize("to", ["web-9", "web-1"])
def test_a_name_that_does_not_stand_by(company: Company, capsys: pytest.CaptureFixture[str], to: str) -> None:
    """With --to somebody who does not stand by, or the leader itself, it leads on, and the command ends with 75."""
    first = company.join("web-1")
    company.join("web-2")
    content = told(company, capsys, "--to", to, code=75)
    assert content["result"] == "declined"
    assert to in content["reason"]
    assert content["leader"]["term"] == content["before"]["term"] == first.terms[0].fencing_token
    assert first.leading.is_set()
    assert first.terms[0].is_valid()


@pytest.mark.parametrize("backend", [CONSUL], indirect=True, scope="session")
def test_half_of_the_list_is_down(company: Company, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """With half of the addresses silent a command that needs a lease waits for them, a ttl at most, says so once, and
    does its work; so do those that end at once if nobody can be reached."""
    backend, silent = company.backend, f"http://127.0.0.1:{next(free_ports())}"
    both = Backend(backend.name, {"url": f"{backend.section['url']},{silent}"}, backend.server)
    company.config = write_config(tmp_path / "both.yaml", both, company.prefix, company.timing)
    first = company.join("web-1")
    for command, code in ((["step-down", "x"], 75), (["release", "x", "--force", "--yes"], 0)):
        assert company.command(*command) == code
        assert caplog.text.count(f"no lease yet: {silent} did not answer") == 1
        caplog.clear()
    assert len(first.terms) == 1


def test_nobody_leads(company: Company, capsys: pytest.CaptureFixture[str]) -> None:
    """Where nobody leads there is nobody to ask: 1."""
    assert told(company, capsys, code=1) == {
        "name": "x", "result": "nobody leads", "reason": None, "before": None, "leader": None, "seconds": None,
        "gap": None,
    }  # fmt: skip


def test_a_leader_that_does_not_listen(company: Company, capsys: pytest.CaptureFixture[str]) -> None:
    """A leader that does not answer in time is named, the command ends with 75, and nothing of the request is left."""
    member = company.join("web-1", "another")
    hold = company.do(member.session.lock("x").acquire())
    content = told(company, capsys, "--timeout", "1.5", code=75)
    assert (content["result"], content["leader"]["instance"]) == ("no answer", "web-1")
    assert company.do(left_of_requests(company)) == []
    company.do(hold.end({}))


async def left_of_requests(company: Company) -> list[str]:
    driver = open_driver(company.backend, company.prefix)
    await driver.open()
    try:
        return [entry.name for prefix in (REQUEST, REPLY) for entry in await driver.scan(prefix)]
    finally:
        await driver.close()


@pytest.mark.parametrize("backend", SERVERS, indirect=True, scope="session")
def test_a_frozen_backend(company: Company, capsys: pytest.CaptureFixture[str]) -> None:
    """A backend that does not answer is one line, and 69."""
    assert company.backend.server is not None
    company.backend.server.pause()
    try:
        assert company.command("step-down", "x") == 69
    finally:
        company.backend.server.resume()
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("timeout", ["0", "-1", "soon", "nan", "inf"])
def test_a_timeout_that_is_none(timeout: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A time limit that is no number of seconds is a wrong argument."""
    with pytest.raises(SystemExit) as ended:
        main(["step-down", "x", f"--timeout={timeout}"])
    assert ended.value.code == 2
    assert "must be a number of seconds" in capsys.readouterr().err
