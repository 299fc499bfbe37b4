"""Docker for a test: a daemon if none runs, images without a registry, a Compose project that is always taken down."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cluster_lock.testing.servers import ServerMissing
from cluster_lock.testing.servers.base import wait_for
from cluster_lock.testing.servers.children import spawn
from cluster_lock.testing.servers.tools import TOOLS_VARIABLE

CHECKOUT = Path(__file__).parents[2]
_IMAGES = {
    "CONSUL_IMAGE": "cluster-lock-local/consul",
    "ETCD_IMAGE": "cluster-lock-local/etcd",
    "PULL_POLICY": "never",
}


@dataclass(frozen=True, slots=True)
class Docker:
    """How to reach a daemon that runs."""

    environment: Mapping[str, str] = field(repr=False)

    def run(self, *command: str, timeout: float = 60, variables: Mapping[str, str] | None = None) -> str:
        """What a command prints; AssertionError with its complaint when it fails."""
        done = subprocess.run(
            command,
            env={**self.environment, **(variables or {})},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            cwd=CHECKOUT,
        )
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip()}"
        return done.stdout

    @contextmanager
    def compose_up(self, file: Path, variables: Mapping[str, str]) -> Iterator[list[str]]:
        """Bring a Compose file up until it is healthy; yields the `docker compose` command line for that project."""
        project = f"cluster-lock-test-{os.getpid()}-{file.parent.name}"
        compose = ["docker", "compose", "--file", str(file), "--project-name", project]
        try:
            self.run(*compose, "up", "--detach", "--wait", timeout=90, variables=variables)
            yield compose
        finally:
            # Also after a failed `up --wait`, which leaves its containers running.
            self.run(*compose, "down", "--volumes", "--timeout", "1", variables=variables)

    def health(self, compose: list[str], service: str) -> str:
        """ "healthy", "unhealthy" or "starting"."""
        container = self.run(*compose, "ps", "--quiet", service).strip()
        return str(json.loads(self.run("docker", "inspect", container))[0]["State"]["Health"]["Status"])


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
        docker.run("scripts/build-local-images", timeout=120, variables={TOOLS_VARIABLE: str(tools)})
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
        with open(f"{folder}/log", "wb") as log:
            daemon = spawn([program, f"--host={host}", *places], log)
        reachable = {**environment, "DOCKER_HOST": host}
        try:
            wait_for(lambda: _answers(reachable) or None, 30, "dockerd did not answer")
            yield reachable
        finally:
            daemon.terminate()
            daemon.wait(timeout=30)


def _answers(environment: Mapping[str, str]) -> bool:
    asked = subprocess.run(["docker", "info"], env=environment, capture_output=True, timeout=30, check=False)
    return asked.returncode == 0
