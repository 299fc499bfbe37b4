"""`cluster-lock status` on real servers: one picture of all locks, for people and for programs."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.backends import Backend
from support.company import Company, write_config
from support.program import CHECKOUT
from support.stores import SERVERS, Operator, open_driver

from cluster_lock.admin.overview import LEASES, look
from cluster_lock.cli import main
from cluster_lock.cli.tables import printable
from cluster_lock.errors import BackendUnavailable
from cluster_lock.testing.servers import ConsulServer, EtcdServer
from cluster_lock.values import Record


def told(company: Company, capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert company.command("status", "--json", *arguments) == 0
    content: dict[str, Any] = json.loads(capsys.readouterr().out)
    return content


def test_a_leader_and_its_standbys(company: Company, capsys: pytest.CaptureFixture[str]) -> None:
    """Each lock is shown with who leads it, where, since when, in which term, and who stands by; so are the servers."""
    leader = company.join("web-1", "telegram/42", health="http://127.0.0.1:9876")
    company.join("web-2", "telegram/42", "telegram/43")
    company.join("web-3", "telegram/42")
    content = told(company, capsys)
    first, second = content["locks"]
    record = leader.session.context.identity.record()
    assert first == first | {
        "name": "telegram/42",
        "state": "led",
        "leader": "web-1",
        "host": record.host,
        "pid": record.pid,
        "term": leader.terms[0].fencing_token,
        "standbys": ["web-2", "web-3"],
        "health": "http://127.0.0.1:9876",
        "version": record.version,
        "foreign": None,
    }
    assert first["since"] <= record.since
    assert (second["name"], second["leader"], second["standbys"]) == ("telegram/43", "web-2", [])
    if company.backend.name == "etcd":
        assert first["ttl"] == company.timing.ttl
        assert 0 < first["lease_left"] <= company.timing.ttl
    elif company.backend.name == "consul":
        assert (first["ttl"], first["lease_left"]) == (company.timing.ttl, None)
    servers = [(node["leads"], node["problem"]) for node in content["nodes"]]
    assert servers == ([] if company.backend.name == "file" else [(True, None)])
    assert [lock["name"] for lock in told(company, capsys, "telegram/43")["locks"]] == ["telegram/43"]

    assert company.command("status") == 0
    lines = capsys.readouterr().out.splitlines()
    (row,) = [line for line in lines if line.startswith("telegram/42 ")]
    for cell in ("web-1", record.host, str(record.pid), "web-2, web-3", "http://127.0.0.1:9876"):
        assert f"  {cell}" in row


def test_nothing_there(company: Company, capsys: pytest.CaptureFixture[str]) -> None:
    """Without any lock there is none to be shown, and that is no error; with files it is said that this tells nothing
    of other users' folders."""
    assert told(company, capsys)["locks"] == []
    assert company.command("status") == 0
    said = capsys.readouterr().out
    if company.backend.name == "file":
        assert f"no locks in {company.backend.section['directory']}" in said
        assert "CLUSTER_LOCK_STATE_DIR" in said
    else:
        assert said.endswith(f"no locks under {company.prefix}\n")


@pytest.mark.parametrize("backend", SERVERS, indirect=True, scope="session")
def test_a_foreign_value(company: Company, capsys: pytest.CaptureFixture[str]) -> None:
    """What nobody of us wrote under a lock's key is named: nobody can lead until a person acts."""
    Operator(company.backend, company.prefix).overwrite("telegram/42", "hands \x1b[31moff")
    (lock,) = told(company, capsys)["locks"]
    assert (lock["state"], lock["leader"], lock["foreign"]) == ("foreign", None, "hands \x1b[31moff")
    assert company.command("status") == 0
    printed = capsys.readouterr().out
    assert "telegram/42: nobody can lead until a person acts" in printed
    assert "\x1b" not in printed
    assert company.command("release", "telegram/42", "--force", "--yes", "--json") == 1
    assert json.loads(capsys.readouterr().out)["result"] == "foreign"
    assert company.command("release", "telegram/42", "--force", "--yes") == 1
    assert "stands what no leader wrote" in capsys.readouterr().out


def test_a_foreign_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same where the keys are files."""
    backend = Backend("file", {"directory": str(tmp_path / "locks")}, None)
    config = write_config(tmp_path / "c.yaml", backend, "cluster-lock/")
    assert main(["status", "--config", str(config)]) == 0
    path = tmp_path / "locks" / "keys" / "cluster-lock+leader+telegram+42.json"
    path.write_text("hands off")
    path.chmod(0o600)
    capsys.readouterr()
    assert main(["status", "--json", "--config", str(config)]) == 0
    (lock,) = json.loads(capsys.readouterr().out)["locks"]
    assert (lock["name"], lock["state"], lock["foreign"]) == ("telegram/42", "foreign", "hands off")
    assert main(["release", "telegram/42", "--force", "--yes", "--config", str(config)]) == 1
    assert "stands what no leader wrote" in capsys.readouterr().out


@pytest.mark.consul
@pytest.mark.parametrize("backend", ["consul"], indirect=True, scope="session")
def test_an_overwritten_record(company: Company, capsys: pytest.CaptureFixture[str]) -> None:
    """A stranger's value under a lock that a session still holds is shown as that: led, by whom the value hides."""
    company.join("web-1", "x")
    Operator(company.backend, company.prefix).overwrite("x", "hello")
    (lock,) = told(company, capsys)["locks"]
    assert (lock["state"], lock["leader"], lock["foreign"]) == ("led", None, None)
    assert lock["term"] is None, "the index of the overwriting is no term"
    assert company.command("status") == 0
    assert "somebody overwrote the value under the lock" in capsys.readouterr().out


def test_a_lock_that_nobody_leads(company: Company, capsys: pytest.CaptureFixture[str]) -> None:
    """A lock for which somebody stands by, and which nobody leads, is shown too."""
    member = company.join("web-1", "x")

    async def contend() -> None:
        lease = await member.session.lease()
        record = replace(member.session.context.identity.record(names=("y",)), instance="web-9")
        await member.session.driver.announce(lease, "standby/any key", record.to_bytes())

    company.do(contend())
    locks = {lock["name"]: lock for lock in told(company, capsys)["locks"]}
    assert (locks["y"]["state"], locks["y"]["leader"], locks["y"]["standbys"]) == ("free", None, ["web-9"])


@pytest.mark.parametrize("leases", [1, 1000])
@pytest.mark.parametrize("backend", SERVERS, indirect=True, scope="session")
async def test_a_thousand_locks(backend: Backend, prefix: str, leases: int) -> None:
    """A picture of 1,000 locks costs this process less than half a second of its processor, no matter who leads them,
    and few requests."""
    ttl = 60.0  # a busy machine takes half of it to make them
    await asyncio.to_thread(Operator(backend, prefix).wait_for_leases, int(ttl))
    driver = open_driver(backend, prefix, request_timeout=10)
    await driver.open()
    try:
        granted = []
        for start in range(0, leases, 50):
            asking = (driver.grant_lease(f"web-{number}", ttl) for number in range(start, min(leases, start + 50)))
            granted += await asyncio.gather(*asking)
        record = Record(holder="a", instance="a", host="h", pid=1, since="", version="0").to_bytes()
        for start in range(0, 1000, 50):
            taking = (
                driver.acquire(granted[number % leases], f"leader/telegram/{number}", record)
                for number in range(start, start + 50)
            )
            assert all(await asyncio.gather(*taking))
        begun = time.process_time()
        overview = await look(driver, request=10)
        took = time.process_time() - begun
        assert len(overview.locks) == 1000
        times = {lock.times.ttl for lock in overview.locks}
        assert times == ({None} if leases > LEASES else {ttl})
        assert took < 1.5
        assert len((await look(driver, only=["telegram/7"], request=10)).locks) == 1
        for lease in granted[:3]:
            await driver.revoke(lease)
    finally:
        await driver.close()


@pytest.mark.etcd
def test_rights_to_read_suffice_on_etcd(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A user who may only read what stands under the prefix sees all of it."""
    with EtcdServer(auth=True) as server:
        server.ctl("role", "add", "look")
        server.ctl("role", "grant-permission", "look", "read", server.prefix, "--prefix")
        server.ctl("user", "add", "onlooker", "--interactive=false", stdin="secret-word")
        server.ctl("user", "grant-role", "onlooker", "look")
        locker = Backend("etcd", {"endpoints": server.endpoints, "user": "locker", "password": server.password}, server)
        onlooker = Backend(
            "etcd", {"endpoints": server.endpoints, "user": "onlooker", "password": "secret-word"}, server
        )
        with Company(locker, "cluster-lock/", tmp_path) as company:
            company.join("web-1", "x")
            config = write_config(tmp_path / "onlooker.yaml", onlooker, "cluster-lock/")
            assert main(["status", "--json", "--config", str(config)]) == 0
            (lock,) = json.loads(capsys.readouterr().out)["locks"]
            assert lock["leader"] == "web-1"


@pytest.mark.consul
def test_rights_to_read_suffice_on_consul(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A token that may only read the keys sees who leads; what it may not see is left out."""
    with ConsulServer(acl=True) as server:
        assert server.management_token
        keys = 'key_prefix "cluster-lock/" { policy = "read" }'
        everything = Backend("consul", {"url": server.url, "token": server.management_token}, server)
        reader = Backend("consul", {"url": server.url, "token": server.create_token(keys)}, server)
        with Company(everything, "cluster-lock/", tmp_path) as company:
            company.join("web-1", "x")
            config = write_config(tmp_path / "reader.yaml", reader, "cluster-lock/")
            assert main(["status", "--json", "--config", str(config)]) == 0
            content = json.loads(capsys.readouterr().out)
            assert [lock["leader"] for lock in content["locks"]] == ["web-1"]
            assert [node["leads"] for node in content["nodes"]] == [True]


@pytest.mark.parametrize(
    "section", [{"etcd": {"endpoints": "http://127.0.0.1:1"}}, {"consul": {"url": "http://127.0.0.1:1"}}]
)
def test_a_backend_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], section: dict[str, Any]
) -> None:
    """A backend that cannot be reached is one line on stderr, and 69."""
    (name, content) = section.popitem()
    backend = Backend(name, content, None)
    config = write_config(tmp_path / "c.yaml", backend, "cluster-lock/")
    assert main(["status", "--config", str(config)]) == BackendUnavailable.exit_code == 69
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "127.0.0.1:1" in printed.err


@pytest.mark.parametrize("backend", ["etcd35", "consul"], indirect=True, scope="session")
def test_watching(company: Company) -> None:
    """--watch shows what changes, sits an outage of the backend out and says so; with --json it is a line for each
    change, and none for what is left of a lease. Ctrl-C ends both."""
    assert company.backend.server is not None
    with watching(company, "--json") as lines, watching(company) as text:
        assert json.loads(next(lines))["locks"] == []
        company.join("web-1", "x")
        assert json.loads(next(lines))["locks"][0]["leader"] == "web-1"
        company.join("web-2", "x")
        assert json.loads(next(lines))["locks"][0]["standbys"] == ["web-2"]
        assert any("web-1" in line and "web-2" in line for line in text)
        company.backend.server.pause()
        try:
            assert any(re.search("did not answer|cannot read", line) for line in text)
        finally:
            company.backend.server.resume()


@contextmanager
def watching(company: Company, *arguments: str) -> Iterator[Iterator[str]]:
    """The lines of `status --watch`, a process of its own, as they come."""
    command = [sys.executable, "-m", "cluster_lock.cli", "status", "--watch", *arguments, "--config"]
    with subprocess.Popen(
        [*command, str(company.config)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(CHECKOUT)},
    ) as process:
        assert process.stdout
        try:
            yield iter(process.stdout.readline, "")
            if "--json" not in arguments:
                assert process.poll() is None
        finally:
            process.send_signal(signal.SIGINT)
        process.stdout.read()
        # A signal that finds it at its very end is Python's own: to a shell that is 130, too.
        assert process.wait(300) in (130, -signal.SIGINT, 69 if "--json" in arguments else 130)


def test_what_strangers_write_steers_no_terminal() -> None:
    """Control characters of what is shown are written out."""
    assert printable("a\x1b[2Jb\rc\x9bd") == "a\\x1b[2Jb\\rc\\x9bd"
    assert printable("Grüße") == "Grüße"
