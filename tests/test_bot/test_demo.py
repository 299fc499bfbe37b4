"""`python -m bot demo` as a user runs it: on each backend, interrupted, killed, and without its server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.bot_process import BotProcess, environment

from bot.demo.plan import DemoPlan
from cluster_lock import clock

BETWEEN = 0.05
SECONDS = 12


class Demo(BotProcess):
    """A demo whose descendants can be found: all of them inherit a variable of its own."""

    def __init__(self, folder: Path, *arguments: str, **environ: str) -> None:
        self._mark = f"DEMO_TEST_{uuid.uuid4().hex}"
        self.temp = folder / "temp"
        self.temp.mkdir()
        given = environment(folder / "state", **{self._mark: "1", "TMPDIR": str(self.temp), **environ})
        super().__init__("demo", *arguments, folder=folder, environ=given)

    def descendants(self) -> list[str]:
        """The command lines of what it started and still runs."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                inherited = self._mark.encode() in (process / "environ").read_bytes()
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:  # it ended meanwhile
                continue
            if inherited and command and process.name != str(self.pid):
                found.append(command)
        return found

    def wait_until_running(self, instances: int, timeout: float = 60.0) -> None:
        end = clock.now() + timeout
        while sum("-m bot start" in command for command in self.descendants()) < instances:
            assert clock.now() < end, f"{instances} instances did not start:\n{self.output}"
            _pause()

    def wait_until_alone(self, timeout: float = 20.0) -> None:
        end = clock.now() + timeout
        while left := self.descendants():
            assert clock.now() < end, f"still there: {left}"
            _pause()


def _pause() -> None:
    signal.sigtimedwait([], BETWEEN)


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Any]:
    """Starts a demo in a folder of its own; nothing of it is left after the test."""
    started: list[Demo] = []

    def begin(*arguments: str, **environ: str) -> Demo:
        started.append(Demo(tmp_path, *arguments, **environ))
        return started[-1]

    yield begin
    for each in started:
        with each:
            each.signal(signal.SIGKILL)
        each.wait_until_alone()


linux_only = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
EXPECTED = {
    "file": ["graceful", "stall", "crash", "stall"],
    "etcd": ["graceful", "stall", "crash", "backend_restart", "stall"],
    "consul": ["graceful", "stall", "crash", "backend_restart", "stall"],
    "redis": ["graceful", "stall", "crash", "backend_restart", "stall"],
}


@linux_only
@pytest.mark.process
@pytest.mark.parametrize(
    "where",
    [
        "file",
        pytest.param("etcd", marks=pytest.mark.etcd),
        pytest.param("consul", marks=pytest.mark.consul),
        pytest.param("redis", marks=pytest.mark.redis),
    ],
)
def test_the_demo_is_ok(demo: Any, where: str) -> None:
    """On each backend every fault is survived: nothing lost, out of order or polled twice at once; nothing is left."""
    running = demo("--backend", where, "--seconds", str(SECONDS), "--json")
    code = running.end(timeout=580)
    assert code == 0, running.output
    [line] = running.output.splitlines()
    found = json.loads(line)
    assert found.pop("duplicated") >= 0
    changes = found.pop("changes")
    assert found.pop("updates_sent") == found.pop("updates_handled") >= 200
    assert found == {
        "backend": where,
        "instances": 3,
        "lost": 0,
        "out_of_order": 0,
        "overlapping_polls": 0,
        "conflicts_live": 0,
        "late_arrivals": 0,
        "ok": True,
    }
    assert [change["kind"] for change in changes if not is_unplanned(change, changes)] == EXPECTED[where]
    gaps = {change["kind"]: change["gap_ms"] for change in changes}
    # Who is invited need not wait until the server frees the lock.
    assert 0 <= gaps["graceful"] < 1000 * DemoPlan(backend=where, seconds=SECONDS).freed_after
    assert gaps["crash"] > 0
    assert gaps["stall"] > 0
    assert running.descendants() == []
    assert list(running.temp.glob("cluster-lock*")) == []
    assert list(Path(running.temp.parent).glob("*.svg")) == []


def is_unplanned(change: dict[str, Any], changes: list[dict[str, Any]]) -> bool:
    """A third stall: an instance that this machine let starve."""
    stalls = [each for each in changes if each["kind"] == "stall"]
    return any(change is each for each in stalls[1:-1])


@linux_only
@pytest.mark.process
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_everything(demo: Any, number: signal.Signals) -> None:
    """Ctrl-C and SIGTERM end the demo and all that it started, and leave no file."""
    running = demo("--backend", "file")
    running.wait_until_running(3)
    running.signal(number)
    assert running.end(timeout=30) == 130
    assert running.descendants() == []
    assert list(running.temp.glob("cluster-lock*")) == []


@linux_only
@pytest.mark.process
@pytest.mark.etcd
def test_what_it_started_dies_with_it(demo: Any) -> None:
    """When the demo itself is killed, its instances and its server end with it."""
    running = demo("--backend", "etcd")
    running.wait_until_running(3)
    assert any("etcd" in command for command in running.descendants())
    running.signal(signal.SIGKILL)
    assert running.end(timeout=30) == -signal.SIGKILL
    running.wait_until_alone()


@pytest.mark.process
@pytest.mark.parametrize("backend_name", ["etcd", "consul", "redis"])
def test_a_missing_server(demo: Any, tmp_path: Path, backend_name: str) -> None:
    """Without the backend's server the demo ends with 69 and says what to run."""
    running = demo("--backend", backend_name, PATH=str(tmp_path), CLUSTER_LOCK_TOOLS=str(tmp_path))
    assert running.end() == 69
    program = "redis-server" if backend_name == "redis" else backend_name
    assert running.output.strip() == (
        f"{program} is not installed: run 'make servers' or 'scripts/install-servers {backend_name}'"
    )


@pytest.mark.process
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--instances", "1"), "one alone has nobody to hand over to"),
        (("--seconds", "1"), "must be from 5 to 600 seconds, but is '1'"),
        (("--rate", "0"), "must be from 1 to 500 updates a second"),
        (("--backend", "zookeeper"), "invalid choice"),
    ],
)
def test_wrong_arguments(demo: Any, arguments: tuple[str, ...], says: str) -> None:
    """What makes no demo is refused in a sentence."""
    running = demo(*arguments)
    assert running.end() == 2
    assert says in running.output


@pytest.mark.process
def test_help_is_quick() -> None:
    """`--help` loads neither aiogram nor anything else that takes time."""
    code = (
        "import sys; sys.argv = ['bot', '--help']\n"
        "import runpy\n"
        "try: runpy.run_module('bot', run_name='__main__')\n"
        "except SystemExit: print(sorted({'aiogram', 'aiohttp', 'pydantic', 'rich', 'grpc'} & sys.modules.keys()))"
    )
    path = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True, env=path
    )
    assert done.stdout.splitlines()[-1] == "[]"
