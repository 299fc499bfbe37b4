"""`python -m bot start` as a user runs it: real processes, real signals, one sentence for whatever is wrong."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

import pytest
from support.aio import PATIENCE, until
from support.bot_process import TOKEN, BotProcess, environment
from support.certs import make_tls
from support.nursery import Nursery
from support.running import below

from cluster_lock import clock
from cluster_lock.config import load, open_driver
from cluster_lock.testing.servers import ConsulServer, EtcdServer
from cluster_lock.testing.telegram import TelegramSimulator

BOT_ID = int(TOKEN.partition(":")[0])
NOBODY = "http://127.0.0.1:1"
PATIENT = "support.patient_bot:dispatcher"
POISON = "support.poison_bot:dispatcher"
QUICK = ("lock.ttl=3s", "lock.margin=1s", "lock.stop_time=500ms")


class Start(Protocol):
    """Starts an instance in its own process. Not `born` in the nursery: as a user does it, with a keeper."""

    def __call__(
        self, *arguments: str, telegram: str = NOBODY, environ: Mapping[str, str] | None = None, born: bool = True
    ) -> BotProcess: ...


@pytest.fixture
def start(nursery: Nursery, tmp_path: Path) -> Start:
    """Starts instances that share a state directory."""
    folder = tmp_path / "work"
    folder.mkdir()

    def start(
        *arguments: str, telegram: str = NOBODY, environ: Mapping[str, str] | None = None, born: bool = True
    ) -> BotProcess:
        given = environment(tmp_path / "state", **{"TELEGRAM_BOT_TOKEN": TOKEN, **(environ or {})})
        command = ("start", *(["--in-process"] if born else []), "--set", f"telegram.api={telegram}", *arguments)
        return BotProcess(*command, folder=folder, environ=given, nursery=nursery if born else None)

    return start


def settings(*assignments: str) -> list[str]:
    return [part for each in assignments for part in ("--set", each)]


def complaint(process: BotProcess) -> str:
    """The last line that it printed."""
    return process.output.splitlines()[-1]


@asynccontextmanager
async def telegram() -> AsyncIterator[TelegramSimulator]:
    async with TelegramSimulator() as simulator:
        yield simulator


async def ended(process: BotProcess, timeout: float = PATIENCE) -> int:
    return await asyncio.to_thread(process.end, timeout)


async def printed(process: BotProcess, text: str) -> None:
    await asyncio.to_thread(process.wait_for, text)


def sent_texts(simulator: TelegramSimulator) -> list[str]:
    return [call.arguments["text"] for call in simulator.calls("sendmessage")]


# -- what is wrong with what it was given ------------------------------------------------------------------------------


@pytest.mark.process
@pytest.mark.parametrize(
    ("arguments", "environ", "says"),
    [
        ((), {"TELEGRAM_BOT_TOKEN": ""}, "telegram.token: is missing: set TELEGRAM_BOT_TOKEN"),
        ((), {"TELEGRAM_BOT_TOKEN": "sesame"}, "is not a bot token"),
        (("--backend", "zookeeper"), {}, "must be one of file, etcd, consul, redis, postgres, but is 'zookeeper'"),
        (("--set", "lock.margin=15s"), {}, "margin (15 s) must be less than ttl (15 s)"),
        (("--config", "nowhere.yaml"), {}, "nowhere.yaml: cannot be read"),
    ],
    ids=["no token", "malformed token", "unknown backend", "margin not below ttl", "no such file"],
)
def test_wrong_settings(start: Start, arguments: tuple[str, ...], environ: dict[str, str], says: str) -> None:
    """Each wrong setting is one sentence and code 78, before anything is started."""
    with start(*arguments, environ=environ) as process:
        assert process.end() == 78
        assert says in process.output
        assert len(process.output.splitlines()) == 1
        assert "sesame" not in process.output


@pytest.mark.process
def test_wrong_app(start: Start) -> None:
    """An --app that cannot be had is one sentence and code 78."""
    with start("--app", "nobodys.bot:dispatcher") as process:
        assert process.end() == 78
        assert complaint(process) == "--app nobodys.bot:dispatcher: there is no module nobodys"


@pytest.mark.process
async def test_the_same_instance_twice(start: Start) -> None:
    """The same instance started a second time ends with 73 and names the process that runs; another name stands by."""
    async with telegram() as simulator:
        with start("--instance", "web-1", telegram=simulator.url) as first:
            await printed(first, "settings: instance web-1 (command line)")
            with start("--instance", "web-1", telegram=simulator.url) as second:
                assert await ended(second) == 73
                assert f"process {first.pid}" in second.output
                assert "lock file" in second.output


@pytest.mark.process
async def test_telegram_refuses_the_token(start: Start) -> None:
    """A token that Telegram answers with 401 ends it with 78, and the sentence names the bot's id."""
    async with telegram() as simulator:
        simulator.revoke(TOKEN)
        with start(telegram=simulator.url) as process:
            assert await ended(process) == 78
            assert complaint(process).startswith(f"Telegram refuses the token of bot {BOT_ID}")


# -- what is wrong with the backend ------------------------------------------------------------------------------------


@pytest.mark.process
@pytest.mark.etcd
async def test_unreachable_backend(start: Start) -> None:
    """A backend that cannot be reached at the start is waited for, with one warning; SIGTERM ends that with 0."""
    tries = 0

    def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal tries
        tries += 1
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as nobody, telegram() as simulator:
        address = f"http://127.0.0.1:{nobody.sockets[0].getsockname()[1]}"
        arguments = ("--backend", "etcd", *settings(f"etcd.endpoints={address}", *QUICK))
        with start(*arguments, telegram=simulator.url) as process:
            await printed(process, "trying on")
            seen = tries
            await until(lambda: tries >= seen + 3)
            process.signal(signal.SIGTERM)
            assert await ended(process) == 0
            assert process.output.count("WARNING") == 1
            assert address in process.output


@pytest.mark.process
@pytest.mark.consul
async def test_fail_fast(start: Start) -> None:
    """With --fail-fast an unreachable backend ends it with 69 and one sentence that names the address."""
    async with telegram() as simulator:
        arguments = ("--backend", "consul", "--fail-fast", *settings(f"consul.url={NOBODY}", *QUICK))
        with start(*arguments, telegram=simulator.url) as process:
            assert await ended(process) == 69
            assert NOBODY in complaint(process)


@pytest.mark.process
@pytest.mark.etcd
async def test_etcd_refuses_permission(start: Start) -> None:
    """A user of etcd who may not write under the prefix ends it with 77."""
    with EtcdServer(auth=True) as server:
        async with telegram() as simulator:
            more = settings(f"etcd.endpoints={server.endpoint}", f"etcd.user={server.username}", "prefix=elsewhere/")
            password = {"CLUSTER_LOCK_ETCD__PASSWORD": server.password}
            with start("--backend", "etcd", *more, telegram=simulator.url, environ=password) as process:
                assert await ended(process) == 77
                assert "permission denied" in complaint(process)
                assert server.password not in process.output


@pytest.mark.process
@pytest.mark.consul
async def test_consul_refuses_permission(start: Start) -> None:
    """A token of Consul without the right to write the keys ends it with 77 and the policy that it needs."""
    with ConsulServer(acl=True, dev=True) as server:
        reader = 'session_prefix "" { policy = "write" } key_prefix "" { policy = "read" }'
        token = {"CONSUL_HTTP_TOKEN": server.create_token(reader)}
        async with telegram() as simulator:
            more = settings(f"consul.url={server.url}")
            with start("--backend", "consul", *more, telegram=simulator.url, environ=token) as process:
                assert await ended(process) == 77
                assert 'key_prefix "cluster-lock/" { policy = "write" }' in complaint(process)
                assert token["CONSUL_HTTP_TOKEN"] not in process.output


@pytest.mark.process
@pytest.mark.etcd
async def test_etcd_with_a_wrong_ca(tmp_path: Path, start: Start) -> None:
    """A CA that did not sign etcd's certificate ends it with 78 and a sentence that names the CA."""
    other = make_tls(_folder(tmp_path / "other"), client=False)
    with EtcdServer(tls=make_tls(_folder(tmp_path / "tls"), client=False)) as server:
        async with telegram() as simulator:
            more = settings(f"etcd.endpoints={server.endpoint}", f"etcd.ca={other.ca}")
            with start("--backend", "etcd", *more, telegram=simulator.url) as process:
                assert await ended(process) == 78
                assert str(other.ca) in complaint(process)


@pytest.mark.process
@pytest.mark.consul
async def test_consul_with_a_wrong_ca(tmp_path: Path, start: Start) -> None:
    """A CA that did not sign Consul's certificate ends it with 78 and a sentence that says so."""
    other = make_tls(_folder(tmp_path / "other"), client=False)
    with ConsulServer(dev=True, tls=make_tls(_folder(tmp_path / "tls"), client=False)) as server:
        async with telegram() as simulator:
            more = settings(f"consul.url={server.url}", f"consul.ca={other.ca}")
            with start("--backend", "consul", *more, telegram=simulator.url) as process:
                assert await ended(process) == 78
                assert "certificate is not trusted" in complaint(process)


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


# -- the life of an instance -------------------------------------------------------------------------------------------


@pytest.mark.process
@pytest.mark.parametrize(
    ("name", "to"),
    [
        ("SIGTERM", "keeper"),
        ("SIGHUP", "keeper"),
        ("SIGTERM", "everybody"),
        ("SIGINT", "everybody"),
        ("SIGHUP", "everybody"),
        ("SIGHUP", "worker"),
        ("SIGHUP", "in-process"),
    ],
)
async def test_a_stop_drains(start: Start, name: str, to: str) -> None:
    """After a signal to stop, to whichever processes it goes, and again within a second, the handler under way comes to
    its end, its update is confirmed, the hooks run, and the process ends with 0."""
    async with telegram() as simulator:
        with start("--app", PATIENT, *settings(*QUICK), telegram=simulator.url, born=to == "in-process") as process:
            await printed(process, "leading")
            simulator.push(BOT_ID, text="work 1.5")
            await until(lambda: sent_texts(simulator) == ["begun"])
            everybody = [process.pid, *(each.pid for each in below(process.pid))]
            chosen = {"everybody": everybody, "worker": everybody[-1:]}.get(to, everybody[:1])
            for pid in chosen * (1 if to == "in-process" else 2):
                os.kill(pid, signal.Signals[name])
            assert await ended(process) == 0
            assert sent_texts(simulator) == ["begun", "done"]
            assert simulator.state()["bots"][str(BOT_ID)]["pending"] == 0
            assert process.output.count("the hook ran") == 1
            assert "starting it again" not in process.output


@pytest.mark.process
def test_ctrl_c_while_it_starts(start: Start) -> None:
    """Ctrl-C before there is anything to hand over ends it at once, without a traceback."""
    with start("--in-process", born=False) as process:
        process.wait_for("settings: ")
        process.signal(signal.SIGINT)
        assert process.end() == 128 + signal.SIGINT


INTERRUPTED = """
import signal

class Interrupted:
    def __del__(self):
        signal.raise_signal(signal.{})

Interrupted()
raise RuntimeError("went on")
"""


@pytest.mark.process
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_where_exceptions_are_forgotten(start: Start, tmp_path: Path, number: signal.Signals) -> None:
    """A signal that comes while Python imports ends it even where no exception can, such as in a callback."""
    (tmp_path / "work" / "interrupted.py").write_text(INTERRUPTED.format(number.name))
    with start("--app", "interrupted:dispatcher") as process:
        assert process.end() == 128 + number
        assert "went on" not in process.output


@pytest.mark.process
async def test_second_sigterm_is_fast(tmp_path: Path, start: Start) -> None:
    """A second SIGTERM waits for no handler: it ends within seconds, the lock is free and the update not confirmed."""
    async with telegram() as simulator:
        long_drain = settings(*QUICK, "lock.drain=60s")
        with start("--app", PATIENT, *long_drain, telegram=simulator.url) as process:
            await printed(process, "leading")
            simulator.push(BOT_ID, text="work 50")
            await until(lambda: sent_texts(simulator) == ["begun"])
            process.signal(signal.SIGTERM)
            await printed(process, "stepping down")
            asked = clock.now()
            process.signal(signal.SIGTERM)
            await ended(process, timeout=20)
            assert clock.now() - asked < 10
            assert sent_texts(simulator) == ["begun"]
            assert simulator.state()["bots"][str(BOT_ID)]["pending"] == 1
        assert await _holder(tmp_path / "state") is None


@pytest.mark.process
async def test_an_update_that_ends_the_process_is_given_up(start: Start) -> None:
    """An update whose handler ends the process is begun three times; then it has failed, and is confirmed. What was
    being handled beside it is not given up with it."""
    async with telegram() as simulator:
        for chat, text in enumerate(("one", "poison", "three"), start=1):
            simulator.push(BOT_ID, chat_id=chat, text=text)
        for _ in range(3):
            with start("--app", POISON, telegram=simulator.url) as process:
                assert await ended(process) == 9
        with start("--app", POISON, telegram=simulator.url) as process:
            await until(lambda: simulator.oracle.report(drained=False).pending == 0)
            assert "was being handled in 3 crashes" in process.output
            process.signal(signal.SIGTERM)
            assert await ended(process) == 0
        texts = sent_texts(simulator)
        assert texts.count("begun poison") == 3
        assert {"done one", "done three"} <= set(texts)


@pytest.mark.process
@pytest.mark.parametrize("born", [False, True], ids=["keeper", "in-process"])
async def test_an_update_that_restarts_the_process(start: Start, born: bool) -> None:
    """A handler that puts the program anew in its own place (os.execv) does so once: its update is confirmed by the new
    one, which is the same process, polls again, and handles what was under way beside it."""
    async with telegram() as simulator:
        with start("--app", POISON, *settings(*QUICK), telegram=simulator.url, born=born) as process:
            await printed(process, "polling, fencing token")
            for chat, text in enumerate(("one", "restart", "three"), start=1):
                simulator.push(BOT_ID, chat_id=chat, text=text)
            await until(lambda: simulator.oracle.report(drained=False).pending == 0)
            assert "ends with this program" in process.output
            process.signal(signal.SIGTERM)
            assert await ended(process) == 0, process.output
        texts = sent_texts(simulator)
        assert texts.count("begun restart") == 1
        assert [texts.count(f"done {name}") for name in ("one", "three")] == [1, 1]


@pytest.mark.process
async def test_an_update_that_exits(start: Start) -> None:
    """A handler that ends its process (sys.exit) does so once: its update does not come again, what was under way
    beside it does, the shutdown hook runs, and the lock is free at once."""
    async with telegram() as simulator:
        for chat, text in enumerate(("one", "exit"), start=1):
            simulator.push(BOT_ID, chat_id=chat, text=text)
        with start("--app", POISON, "--in-process", *settings(*QUICK), telegram=simulator.url) as process:
            assert await ended(process) == 3
            assert "ends with this process" in process.output
            assert "the dispatcher has shut down" in process.output
        with start("--app", POISON, "--in-process", *settings(*QUICK), telegram=simulator.url) as process:
            await until(lambda: simulator.oracle.report(drained=False).pending == 0)
            assert "lock released" in process.output
            process.signal(signal.SIGTERM)
            assert await ended(process) == 0, process.output
        texts = sent_texts(simulator)
        assert texts.count("begun exit") == 1
        assert "done one" in texts


async def _holder(directory: Path) -> str | None:
    """The lease that holds the bot's lock."""
    found = load(overrides={"file.directory": str(directory)}, environ={"CLUSTER_LOCK_STATE_DIR": str(directory)})
    driver = open_driver(found)
    await driver.open()
    try:
        name = f"leader/telegram/{BOT_ID}"
        return (await driver.read([name])).entries[name].lease
    finally:
        await driver.close()


@pytest.mark.process
async def test_the_other_takes_over(start: Start) -> None:
    """Of two instances one polls; after a kill -9 the other one does, and says who leads with a larger token."""
    async with telegram() as simulator:
        commands = [start("--instance", name, *settings(*QUICK), telegram=simulator.url) for name in ("a", "b")]
        with commands[0] as one, commands[1] as two:
            await until(lambda: " leading, " in one.output + two.output)
            leader, other = (one, two) if " leading, " in one.output else (two, one)
            await printed(other, f"bot {BOT_ID} is @")
            await _ask_who_leads(simulator, "a" if leader is one else "b", answers=1)
            assert " leading, " not in other.output

            leader.signal(signal.SIGKILL)
            assert await ended(leader) == -signal.SIGKILL
            await printed(other, " leading, ")
            await _ask_who_leads(simulator, "a" if other is one else "b", answers=2)
            first, second = (text.splitlines()[1].split()[1] for text in sent_texts(simulator))
            assert int(second) > int(first)
            other.signal(signal.SIGTERM)
            assert await ended(other) == 0


async def _ask_who_leads(simulator: TelegramSimulator, instance: str, *, answers: int) -> None:
    """Until it is answered, and confirmed: else the next leader would get it once more."""
    simulator.push(BOT_ID, text="/wholeads")
    await until(lambda: not simulator.oracle.report(drained=False).pending)
    assert len(sent_texts(simulator)) == answers
    assert sent_texts(simulator)[-1].startswith(f"{instance} on ")
