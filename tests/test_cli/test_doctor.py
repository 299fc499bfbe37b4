"""`cluster-lock doctor` on real servers and the Telegram simulator: it finds what is wrong, and leaves nothing."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.answering import Answering
from support.backends import Backend
from support.botapi import TOKEN
from support.company import TIMING, Company, write_config
from support.serving import Serving
from support.stores import SERVERS, Operator

from cluster_lock import clock
from cluster_lock.cli import main
from cluster_lock.cli.doctor_telegram import examine_telegram, page_of
from cluster_lock.cli.findings import Severity
from cluster_lock.cli.pages import Unreachable, ask
from cluster_lock.config import Settings
from cluster_lock.drivers.memory import MemoryDriver
from cluster_lock.testing.servers import ConsulServer, EtcdServer, RedisServer
from cluster_lock.testing.telegram import TelegramSimulator
from cluster_lock.values import Record, Timing

Checks = dict[str, list[dict[str, Any]]]


def examined(company: Company, capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> Checks:
    assert company.command("doctor", "--json", *arguments) == code
    return found(capsys, ok=code == 0)


def found(capsys: pytest.CaptureFixture[str], *, ok: bool) -> Checks:
    printed = capsys.readouterr().out
    assert TOKEN.partition(":")[2] not in printed
    content = json.loads(printed)
    assert content["ok"] == ok
    checks: Checks = {}
    for check in content["checks"]:
        checks.setdefault(check["check"], []).append(check)
    return checks


def outcome(checks: Checks, name: str) -> tuple[str, str]:
    (check,) = checks[name]
    return check["outcome"], check["text"]


def test_all_is_well(company: Company, capsys: pytest.CaptureFixture[str]) -> None:
    """Where all is well each check says so, what was tried is deleted again, and a leader is not disturbed."""
    leader = company.join("web-1")
    operator = Operator(company.backend, company.prefix)
    before = operator.keys()
    checks = examined(company, capsys, "--no-telegram")
    for name in ("settings", "clock", "backend", "lease", "rights", "take-over"):
        assert outcome(checks, name)[0] == "ok", checks[name]
    assert operator.keys() == before
    assert leader.terms[0].is_valid()
    expected = {"file": "at once", "etcd": "up to 4.75 s", "consul": "up to 8.25 s"}
    assert outcome(checks, "take-over")[1].startswith(expected.get(company.backend.name, "up to 4.25 s"))
    assert ("hosts" in checks) is (company.backend.name == "file")
    if company.backend.name in ("etcd", "consul"):
        first, alone = checks["servers"]
        assert "leads the servers" in first["text"]
        assert (alone["outcome"], alone["advice"]) == ("warning", "run three")
    elif company.backend.name != "file":  # of primaries there is one, however many replicas
        assert {check["outcome"] for check in checks["servers"]} == {"ok"}
        assert "one server decides" in checks["servers"][-1]["text"]
    assert company.command("doctor", "--no-telegram") == 0
    assert capsys.readouterr().out.startswith("ok       settings    backend ")


def test_wrong_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Each problem of the settings is a line, and 78."""
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text("backend: etdc\nlock: {ttl: 1}\n")
    assert main(["doctor", "--json"]) == 78
    assert len(found(capsys, ok=False)["settings"]) == 2


@pytest.mark.parametrize("backend", SERVERS, indirect=True, scope="session")
def test_a_backend_that_does_not_answer(company: Company, capsys: pytest.CaptureFixture[str]) -> None:
    """A frozen server is a problem of the backend, and 69; nothing else is tried."""
    assert company.backend.server is not None
    company.backend.server.pause()
    try:
        checks = examined(company, capsys, "--no-telegram", code=69)
    finally:
        company.backend.server.resume()
    assert outcome(checks, "backend")[0] == "problem"
    assert "rights" not in checks


@pytest.mark.etcd
def test_a_right_that_is_missing_on_etcd(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A user who may write some of the keys only is told which one not, and 77; what was written is gone."""
    with EtcdServer(auth=True) as server:
        server.ctl("role", "add", "half")
        server.ctl("role", "grant-permission", "half", "readwrite", "cluster-lock/leader/", "--prefix")
        server.ctl("role", "grant-permission", "half", "readwrite", "cluster-lock/last/", "--prefix")
        server.ctl("user", "add", "half", "--interactive=false", stdin="secret-word")
        server.ctl("user", "grant-role", "half", "half")
        section = {"endpoints": server.endpoints, "user": "half", "password": "secret-word"}
        config = write_config(tmp_path / "c.yaml", Backend("etcd", section, server), "cluster-lock/")
        assert main(["doctor", "--no-telegram", "--json", "--config", str(config)]) == 77
        result, text = outcome(found(capsys, ok=False), "rights")
        assert result == "problem"
        assert "cannot stand by" in text
        assert "cluster-lock/standby/doctor/" in text
        assert server.ctl("get", "--prefix", "", "--keys-only").split() == []


RIGHTS = {
    "key": 'key_prefix "cluster-lock/" { policy = "write" }',
    "session": 'session_prefix "" { policy = "write" }',
}


@pytest.mark.consul
@pytest.mark.parametrize(("missing", "check"), [("key", "backend"), ("session", "lease")])
def test_a_right_that_is_missing_on_consul(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], missing: str, check: str
) -> None:
    """A token that lacks one of the two rules is told which, and 77; with both all is well."""
    with ConsulServer(acl=True) as server:
        for rules in ([rule for name, rule in RIGHTS.items() if name != missing], [*RIGHTS.values()]):
            section = {"url": server.url, "token": server.create_token("\n".join(rules))}
            config = write_config(tmp_path / "c.yaml", Backend("consul", section, server), "cluster-lock/")
            code = 0 if len(rules) == 2 else 77
            assert main(["doctor", "--no-telegram", "--json", "--config", str(config)]) == code
            checks = found(capsys, ok=code == 0)
            if code:
                assert RIGHTS[missing] in outcome(checks, check)[1]
        assert not server.request("GET", "/v1/kv/?keys")


@pytest.mark.parametrize("backend", ["redis", "postgres18"], indirect=True, scope="session")
@pytest.mark.parametrize(("off", "says"), [(0, ""), (3600, "s behind this host's"), (-3600, "s ahead of this host's")])
def test_the_clocks(
    company: Company, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], off: int, says: str
) -> None:
    """Where leases end by the server's wall clock, one that differs from this host's is a warning."""
    here = clock.wall
    monkeypatch.setattr(clock, "wall", lambda: here() + off)
    result, text = outcome(examined(company, capsys, "--no-telegram"), "clocks")
    assert result == ("warning" if off else "ok")
    assert says in text


@pytest.mark.redis
def test_a_right_that_is_missing_on_redis(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A user who may not write is told where the rights stand, and 77; one who may not look round is warned."""
    rights = "+@all -scan -pexpire"
    with RedisServer() as server:
        for user, more in (("reader", "-set"), ("bot", "+pexpire")):
            server.cli("ACL", "SETUSER", user, "on", ">pass-word", "~*", "&*", *rights.split(), more)

        def checks_of(user: str, code: int) -> Checks:
            section = {"url": server.url, "user": user, "password": "pass-word"}
            timing = Timing(ttl=4.0, margin=1.0, stop_time=0.5)
            config = write_config(tmp_path / "c.yaml", Backend("redis", section, server), "cluster-lock/", timing)
            assert main(["doctor", "--no-telegram", "--json", "--config", str(config)]) == code
            return found(capsys, ok=code == 0)

        result, text = outcome(checks_of("reader", 77), "lease")
        assert result == "problem"
        assert text.endswith("what it needs: docs/redis.md#rights")
        assert "user_script" not in text
        checks = checks_of("bot", 0)
        assert outcome(checks, "rights")[0] == "ok"
        result, text = outcome(checks, "status")
        assert result == "warning"
        assert "`cluster-lock status` cannot look" in text


@pytest.mark.consul
def test_the_floor_of_consul(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A ttl below session_ttl_min is a problem of the settings, with the server's number."""
    with ConsulServer(dev=True, fast=False) as server:
        config = write_config(tmp_path / "c.yaml", Backend("consul", {"url": server.url}, server), "cluster-lock/")
        assert main(["doctor", "--no-telegram", "--json", "--config", str(config)]) == 78
        result, text = outcome(found(capsys, ok=False), "lease")
        assert result == "problem"
        assert "from 10s (session_ttl_min of the servers)" in text


@pytest.mark.etcd
def test_the_floor_of_etcd(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A ttl that etcd raises is a warning, with the server's number, and the take-over time counts with that."""
    timing = Timing(ttl=1.0, margin=0.3, stop_time=0.22, settle=0.25)
    with EtcdServer(fast=False) as server:
        section = {"endpoints": server.endpoints}
        config = write_config(tmp_path / "c.yaml", Backend("etcd", section, server), "cluster-lock/", timing)
        assert main(["doctor", "--no-telegram", "--json", "--config", str(config)]) == 0
        checks = found(capsys, ok=True)
        assert outcome(checks, "lease") == ("warning", "lock.ttl is 1 s, the server grants no less than 2 s")
        assert outcome(checks, "take-over")[1].startswith("up to 2.75 s")


class Telegram:
    """The simulator, on a loop of its own."""

    def __init__(self, folder: Path) -> None:
        self.company = Company(Backend("file", {"directory": str(folder / "locks")}, None), "cluster-lock/", folder)
        self.folder = folder

    def __enter__(self) -> Telegram:
        self.company.__enter__()
        self.simulator = TelegramSimulator()
        self.company.do(self.simulator.__aenter__())
        telegram = {"token": TOKEN, "api": self.simulator.url}
        self.company.config = write_config(
            self.folder / "t.yaml", self.company.backend, "cluster-lock/", TIMING, telegram=telegram
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.company.do(self.simulator.__aexit__(None, None, None))
        self.company.__exit__(None, None, None)

    def tell(self, what: Callable[..., Any], *arguments: Any) -> None:
        async def told() -> None:
            what(*arguments)
            await asyncio.sleep(0)

        self.company.do(told())


@pytest.fixture
def telegram(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Telegram]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLUSTER_LOCK_STATE_DIR", str(tmp_path / "state"))
    with Telegram(tmp_path) as telegram:
        yield telegram
        assert telegram.simulator.oracle.polls() == []


def test_a_good_token(telegram: Telegram, capsys: pytest.CaptureFixture[str]) -> None:
    """Telegram is asked who the bot is and whether a webhook is set, and never for updates; where nobody leads it is
    said what cannot be told."""
    checks = examined(telegram.company, capsys)
    assert outcome(checks, "telegram")[0] == "ok"
    assert "id 42" in outcome(checks, "telegram")[1]
    assert outcome(checks, "webhook") == ("ok", "none is set")
    assert outcome(checks, "poller")[0] == "warning"
    assert "cannot be told" in outcome(checks, "poller")[1]
    telegram.tell(telegram.simulator.push_many, 42, 3)
    checks = examined(telegram.company, capsys)
    assert "3 updates wait" in outcome(checks, "poller")[1]


def test_a_foreign_value_under_the_bots_key(telegram: Telegram, capsys: pytest.CaptureFixture[str]) -> None:
    """What no leader wrote under the key of the bot's lock is a problem, and not merely a lock that nobody leads."""
    examined(telegram.company, capsys)
    key = telegram.folder / "locks" / "keys" / "cluster-lock+leader+telegram+42.json"
    key.write_text("hands off")
    key.chmod(0o600)
    checks = examined(telegram.company, capsys, code=78)
    assert outcome(checks, "poller")[0] == "problem"
    assert "what no leader wrote" in outcome(checks, "poller")[1]


def test_a_webhook(telegram: Telegram, capsys: pytest.CaptureFixture[str]) -> None:
    """A webhook is a problem, unless it is to be deleted; its address is named without its path, which may be a
    secret."""
    telegram.tell(telegram.simulator.set_webhook, 42, "https://bots.example.org/very-secret-path")
    checks = examined(telegram.company, capsys, code=1)
    result, text = outcome(checks, "webhook")
    assert (result, "bots.example.org" in text, "secret-path" in text) == ("problem", True, False)
    checks = examined(telegram.company, capsys, "--set", "telegram.delete_webhook=on_conflict")
    assert outcome(checks, "webhook")[0] == "warning"


def test_a_token_that_telegram_refuses(telegram: Telegram, capsys: pytest.CaptureFixture[str]) -> None:
    """A token that Telegram does not know is 78."""
    telegram.tell(telegram.simulator.revoke, 42)
    checks = examined(telegram.company, capsys, code=78)
    assert outcome(checks, "telegram")[0] == "problem"
    assert "refuses the token" in outcome(checks, "telegram")[1]


def test_telegram_out_of_reach(telegram: Telegram, capsys: pytest.CaptureFixture[str]) -> None:
    """A Bot API server that is not there is a problem, and the message has no token in it."""
    checks = examined(telegram.company, capsys, "--set", "telegram.api=http://127.0.0.1:1", code=1)
    assert outcome(checks, "telegram")[0] == "problem"


def test_without_a_token(telegram: Telegram, capsys: pytest.CaptureFixture[str]) -> None:
    """No token is a warning: `cluster-lock run` needs none."""
    write_config(telegram.company.config, telegram.company.backend, "cluster-lock/")
    checks = examined(telegram.company, capsys)
    assert outcome(checks, "telegram")[0] == "warning"


@contextmanager
def health_page(content: dict[str, Any]) -> Iterator[str]:
    """A leader's health page."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return None

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join(10)


@pytest.mark.parametrize(("conflicts", "expected"), [(0, "ok"), (3, "problem")])
def test_a_leader_that_meets_conflicts(
    telegram: Telegram, capsys: pytest.CaptureFixture[str], conflicts: int, expected: str
) -> None:
    """A leader whose health page counts conflicts says that somebody polls outside of the lock."""
    with health_page({"pid": os.getpid(), "role": "leader", "conflicts_60s": conflicts}) as address:
        telegram.company.join("web-1", "telegram/42", health=address)
        checks = examined(telegram.company, capsys, code=1 if conflicts else 0)
        result, text = outcome(checks, "poller")
        assert result == expected
        assert text.startswith("web-1 on ")


GOOD_BOT = b'{"ok": true, "result": {"id": 42, "username": "b"}}'


@pytest.mark.parametrize(
    ("bot", "webhook", "says"),
    [
        (b'{"ok": true, "result": 5}', b"{}", "getMe was answered with a result that is no object"),
        (b'{"ok": true, "result": {"id": "42"}}', b"{}", "whose id is of another type"),
        (b'{"ok": true, "result": {}}', b"{}", "without the id of a bot"),
        (b'{"a":' * 100_000, b"{}", "with what is no JSON"),
        (b"[]", b"{}", "with what is no object"),
        (GOOD_BOT, b'{"ok": true}', "getWebhookInfo was answered with a result that is no object"),
        (GOOD_BOT, b'{"ok": true, "result": {"url": 5}}', "whose url is of another type"),
        (GOOD_BOT, b'{"ok": true, "result": {"pending_update_count": "1"}}', "whose pending_update_count is of"),
    ],
    ids=range(8),
)
def test_an_odd_server(bot: bytes, webhook: bytes, says: str) -> None:
    """Whatever somebody says who is not Telegram, the doctor has one sentence about it."""
    pages = {f"/bot{TOKEN}/getMe": bot, f"/bot{TOKEN}/getWebhookInfo": webhook}
    with Answering(b"", pages=pages) as server:
        settings = Settings.model_validate({"telegram": {"token": TOKEN, "api": server.url}})
        finding = asyncio.run(examine_telegram(MemoryDriver(), settings))[-1]
    assert finding.outcome is Severity.PROBLEM
    assert says in finding.text
    assert TOKEN.partition(":")[2] not in finding.text


def test_a_webhook_at_an_address_that_is_none() -> None:
    """A webhook that is set is told, wherever it leads, in not too many words."""
    webhook = b'{"result": {"url": "http://[::1"}}'
    pages = {f"/bot{TOKEN}/getMe": GOOD_BOT, f"/bot{TOKEN}/getWebhookInfo": webhook}
    with Answering(b"", pages=pages) as server:
        settings = Settings.model_validate({"telegram": {"token": TOKEN, "api": server.url}})
        findings = asyncio.run(examine_telegram(MemoryDriver(), settings))
    assert "one is set, to an address that is none" in findings[1].text


@pytest.mark.parametrize("begin", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"], ids=["head", "body"])
def test_a_server_that_drips(begin: bytes) -> None:
    """The whole of an answer has a time limit, however often a byte comes."""
    over = threading.Event()

    class Drips(http.server.BaseHTTPRequestHandler):
        def handle(self) -> None:
            self.wfile.write(begin)
            with contextlib.suppress(OSError):
                while not over.wait(0.05):
                    self.wfile.write(b"1")

    try:
        with Serving(Drips) as server:
            began = clock.now()
            with pytest.raises(Unreachable, match=r"no whole answer within 0\.5 s"):
                ask(server.url, 0.5)
            assert clock.now() - began < 10
            over.set()
    finally:
        over.set()


def test_a_leader_whose_health_is_not_seen_from_here(telegram: Telegram, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the leader's health page cannot be reached, it is said where the answer stands."""
    telegram.company.join("web-1", "telegram/42", health="http://127.0.0.1:1")
    checks = examined(telegram.company, capsys)
    assert "not reachable from here" in outcome(checks, "poller")[1]


HERE = socket.gethostname()


@pytest.mark.parametrize(
    ("address", "host", "asked"),
    [
        ("http://127.0.0.1:9876", HERE, "http://127.0.0.1:9876"),
        ("127.0.0.1:9876", HERE, "http://127.0.0.1:9876"),
        ("http://[::1]:9876/", HERE, "http://[::1]:9876"),
        ("http://0.0.0.0:9876", HERE, "http://0.0.0.0:9876"),
        ("http://localhost:9876/any?thing", HERE, "http://localhost:9876"),
        ("http://10.0.0.5:9877", HERE, "http://10.0.0.5:9877"),
        ("http://10.0.0.6:9877", HERE, None),
        ("http://127.0.0.1:9876", "another-host", None),
        ("http://10.0.0.5:9877", "another-host", None),
        ("http://169.254.169.254:8080", HERE, None),
        ("http://127.0.0.1:80", HERE, None),
        ("http://127.0.0.1", HERE, None),
        ("https://127.0.0.1:9876", HERE, None),
        ("file:///etc/passwd", HERE, None),
        ("http://user:secret@127.0.0.1:9876", HERE, None),
        ("http://127.0.0.1.evil.example:9876", HERE, None),
        ("http://127.0.0.1:99999", HERE, None),
        ("http://[::1:9876", HERE, None),
        ("", HERE, None),
        (None, HERE, None),
        (["http://127.0.0.1:9876"], HERE, None),
    ],
)
def test_which_page_of_a_record_is_asked(address: Any, host: str, asked: str | None) -> None:
    """Anybody who may write can name an address in a record: only one of this host is asked, on loopback or where the
    settings have it, over http, and at no port of the system."""
    record = Record(holder="x", instance="x", host=host, pid=1, since="", version="", health=address)
    assert page_of(record, "10.0.0.5:9877") == asked


def test_a_page_that_leads_elsewhere_is_not_followed(telegram: Telegram, capsys: pytest.CaptureFixture[str]) -> None:
    """A redirect is not followed, and who it names hears nothing."""
    heard: list[str] = []

    class Elsewhere(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heard.append(self.path)
            self.send_response(302)
            self.send_header("Location", f"http://{self.headers['Host']}/secret")
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            return None

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        telegram.company.join("web-1", "telegram/42", health=f"http://127.0.0.1:{server.server_port}")
        checks = examined(telegram.company, capsys)
        server.shutdown()
        thread.join(10)
    assert "not reachable from here" in outcome(checks, "poller")[1]
    assert heard == ["/health"]


@pytest.mark.parametrize(
    ("host", "page"),
    [
        ("another-host", {"pid": os.getpid(), "role": "leader"}),
        (socket.gethostname(), {"pid": os.getpid() + 1, "role": "leader"}),
        (socket.gethostname(), {"pid": os.getpid(), "role": "standby"}),
    ],
)
def test_a_page_that_is_not_the_leaders(
    telegram: Telegram,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    host: str,
    page: dict[str, Any],
) -> None:
    """The page of a standby here, at the loopback address that the leader on its own host has, is not told as the
    leader's."""
    with health_page({**page, "conflicts_60s": 3}) as address:
        telegram.company.join("web-1", "telegram/42", health=address)
        monkeypatch.setattr(socket, "gethostname", lambda: host)
        checks = examined(telegram.company, capsys)
        result, text = outcome(checks, "poller")
        assert (result, "not reachable from here" in text) == ("ok", True)
