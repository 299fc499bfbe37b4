"""The commands against real keepers: what an operator does to `cluster-lock run` on two hosts, so to say."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.aio import PATIENCE, run, until
from support.backends import Backend
from support.company import write_config
from support.program import CHECKOUT
from support.running import below, name_of

from cluster_lock import clock
from cluster_lock.values import Timing

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(sys.platform == "win32", reason="a keeper needs processes of POSIX"),
]

TIMING = Timing(ttl=4.0, margin=1.0, stop_time=0.5, settle=0.25, drain=1.0, cancel_grace=0.5, invite=2.0)


class Operator:
    """Gives commands as a person does, each a process of its own."""

    def __init__(self, backend: Backend, prefix: str, folder: Path) -> None:
        self.config = write_config(folder / "c.yaml", backend, prefix, TIMING, health="off")
        self.folder = folder
        self.environ = os.environ | {"PYTHONPATH": str(CHECKOUT), "CLUSTER_LOCK_STATE_DIR": str(folder / "state")}
        self.command = [sys.executable, "-m", "cluster_lock.cli"]

    def run(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        """The code and the JSON of one command."""
        ended = subprocess.run(
            [*self.command, *arguments, "--json", "--config", str(self.config)],
            capture_output=True,
            text=True,
            timeout=300,
            env=self.environ,
            cwd=self.folder,
            check=False,
        )
        return ended.returncode, json.loads(ended.stdout or "{}") | {"stderr": ended.stderr}

    @contextlib.contextmanager
    def keeper(self, instance: str) -> Iterator[subprocess.Popen[bytes]]:
        arguments = ["run", "--lock", "x", "--instance", instance, "--restart", "always", "--config", str(self.config)]
        with (
            (self.folder / f"{instance}.log").open("wb") as log,
            subprocess.Popen(
                [*self.command, *arguments, "--", "sleep", "1000"],
                env=self.environ,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            ) as process,
        ):
            try:
                yield process
            finally:
                process.terminate()
                try:
                    process.wait(PATIENCE)
                except subprocess.TimeoutExpired:
                    process.kill()

    def until(self, leader: str, *standbys: str) -> dict[str, Any]:
        """The lock, once it is led by `leader` and these stand by."""
        give_up = clock.now() + 30
        while clock.now() < give_up:
            _, content = self.run("status")
            for lock in content["locks"]:
                if lock["leader"] == leader and set(standbys) <= set(lock["standbys"]):
                    return dict(lock)
        logs = "".join(path.read_text() for path in self.folder.glob("*.log"))
        raise AssertionError(f"{leader} does not lead with {standbys}: {content}\n{logs}")


def works(keeper: subprocess.Popen[bytes]) -> bool:
    return any(name_of(each) == "sleep" for each in below(keeper.pid))


def test_an_operator_and_two_keepers(backend: Backend, prefix: str, tmp_path: Path) -> None:
    """What leads is shown, hands over to whom it is told, declines where nobody is, and stops when it is broken; the
    program runs at one of the two."""
    operator = Operator(backend, prefix, tmp_path)
    with ExitStack() as stack:
        first = stack.enter_context(operator.keeper("web-1"))
        before = operator.until("web-1")
        second = stack.enter_context(operator.keeper("web-2"))
        operator.until("web-1", "web-2")

        code, told = operator.run("step-down", "x", "--to", "web-2")
        assert (code, told["result"]) == (0, "handed over"), told
        after = operator.until("web-2", "web-1")
        assert after["term"] == told["leader"]["term"] > before["term"]
        run(until(lambda: works(second)))
        assert not works(first)

        code, told = operator.run("step-down", "x", "--to", "web-9")
        assert (code, told["result"]) == (75, "declined"), told

        code, told = operator.run("release", "x", "--force", "--yes")
        assert (code, told["result"], told["stopped"]) == (0, "released", True), told
        assert told["hit"]["instance"] == "web-2"
