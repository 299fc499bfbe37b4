"""Docker for a test: a daemon if none runs, and images without a registry."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from cluster_lock.testing.servers import ServerMissing
from cluster_lock.testing.servers.base import wait_for
from cluster_lock.testing.servers.children import spawn
from cluster_lock.testing.servers.tools import TOOLS_VARIABLE

CHECKOUT = Path(os.environ.get("CLUSTER_LOCK_CHECKOUT") or Path(__file__).parents[2])
"""The whole of it: where tests run in a copy that lacks the library, the variable says where it is."""

_IMAGES = {
    "CONSUL_IMAGE": "cluster-lock-local/consul",
    "ETCD_IMAGE": "cluster-lock-local/etcd",
    "BOT_IMAGE": "cluster-lock-local/bot",
    "PULL_POLICY": "never",
}
_UNSHARE = "/usr/bin/unshare"
_BUILT_WITHIN = 300.0
"""Seconds; the slowest step installs the bot with pip, on a processor that others may be using."""


@dataclass(frozen=True, slots=True)
class Docker:
    """How to reach a daemon that runs."""

    environment: Mapping[str, str] = field(repr=False)

    def run(
        self,
        *command: str,
        timeout: float = 60,
        variables: Mapping[str, str] | None = None,
        said: str = "",
        code: int = 0,
    ) -> str:
        """What a command prints if it ends with `code` (with its complaints, if that is not 0); else AssertionError.
        `said`: its stdin."""
        done = subprocess.run(
            command,
            env={**self.environment, **(variables or {})},
            input=said,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            cwd=CHECKOUT,
        )
        everything = f"{done.stdout}{done.stderr}".strip()
        assert done.returncode == code, f"{' '.join(command)}: code {done.returncode}: {everything}"
        return everything if code else done.stdout

    def inspect(self, container: str) -> dict[str, Any]:
        (found,) = json.loads(self.run("docker", "inspect", container))
        return dict(found)


@contextmanager
def docker_daemon() -> Iterator[Docker]:
    """The daemon of this machine, or one of our own for as long as the block runs; with the local images built."""
    environment = {**os.environ, **_IMAGES}
    tools = Path(os.environ.get(TOOLS_VARIABLE) or CHECKOUT / ".tools")
    environment["DOCKER_CONFIG"] = str(tools / "docker-config")
    if not (tools / "docker-config/cli-plugins/docker-compose").exists() or shutil.which("docker") is None:
        raise ServerMissing("docker compose is not installed: run 'scripts/install-servers docker'")
    with _running(environment) as reachable:
        docker = Docker(reachable)
        docker.run("scripts/build-local-images", timeout=_BUILT_WITHIN, variables={TOOLS_VARIABLE: str(tools)})
        yield docker


@contextmanager
def _running(environment: Mapping[str, str]) -> Iterator[Mapping[str, str]]:
    if _answers(environment):
        yield environment
        return
    program = shutil.which("dockerd", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if program is None or os.geteuid() != 0:
        raise ServerMissing("no docker daemon runs and none can be started: run 'sudo scripts/install-servers docker'")
    # Everything in a folder of its own: nobody else finds this daemon, so nobody misses it when it is stopped.
    with tempfile.TemporaryDirectory(prefix="cluster-lock-docker-") as folder:
        host = f"unix://{folder}/docker.sock"
        places = [f"--data-root={folder}/data", f"--exec-root={folder}/run", f"--pidfile={folder}/docker.pid"]
        # Not where a daemon that was killed has left its rules for addresses, which would spoil ours.
        addresses = f"--default-address-pool=base=10.{random.randint(64, 250)}.0.0/16,size=24"
        # In a PID namespace, which ends with us: else a test run that is killed would leave its containers running.
        namespace = [_UNSHARE, "--pid", "--fork", "--kill-child", "--mount-proc"]
        with open(f"{folder}/log", "wb") as log:
            daemon = spawn([*namespace, program, f"--host={host}", *places, addresses], log)
        reachable = {**environment, "DOCKER_HOST": host}
        try:
            wait_for(lambda: _answers(reachable) or None, 30, "dockerd did not answer")
            yield reachable
        finally:
            for child in psutil.Process(daemon.pid).children():
                child.terminate()
            daemon.wait(timeout=30)


def _answers(environment: Mapping[str, str]) -> bool:
    asked = subprocess.run(["docker", "info"], env=environment, capture_output=True, timeout=300, check=False)
    return asked.returncode == 0
