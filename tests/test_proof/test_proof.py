"""What proves more than a test can, with other seeds each day: the model in its small worlds, hours of random
schedules, rounds in the laboratory, a soak. It is not part of `make test`; `make proof` runs it."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.docker import CHECKOUT
from support.schedules import play, problems

pytestmark = pytest.mark.proof

DAY = datetime.now(UTC).toordinal()
RULES = tomllib.loads((CHECKOUT / "docs" / "model" / "rules.toml").read_text(encoding="utf-8"))
WORLDS = sorted(world["name"] for world in RULES["world"])
BACKENDS = ("etcd35", "consul", "redis", "postgres18", "file")
ROUNDS = 5
"""On each backend, with bring-up about 50 s: four minutes together."""
PARTS, SEEDS = 10, 120
"""Of schedules. One lasts for 300 s of virtual time, so all of them for 100 hours."""
LIMIT = 900


@pytest.mark.parametrize("world", WORLDS)
def test_the_model_holds(world: str) -> None:
    """In no order of what can happen in this small world is there what must not be."""
    run(sys.executable, str(CHECKOUT / "scripts" / "model"), world, "--workers", "1")


@pytest.mark.parametrize("part", range(PARTS))
def test_hours(part: int) -> None:
    """Ten hours of a cluster in virtual time, as tests/test_core/test_schedules.py has minutes."""
    first = (DAY * PARTS + part) * SEEDS
    found = {seed: list(problems(play(seed))) for seed in range(first, first + SEEDS)}
    assert not {seed: problem for seed, problem in found.items() if problem}


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_laboratory_finds_nothing(backend: str) -> None:
    """Some rounds of faults on real servers leave nothing that must not be; every second day under keepers."""
    kept = ("--kept",) if DAY % 2 else ()
    seed = str(DAY * ROUNDS)
    run(sys.executable, "-m", "chaos", "--backend", backend, "--rounds", str(ROUNDS), "--seed", seed, *kept)


def test_nothing_grows() -> None:
    """Two minutes of hand-overs under traffic leave no more memory, descriptors, threads, tasks or leases."""
    run(sys.executable, "-m", "chaos.soak", "--hours", "0.03")


def run(*command: str) -> None:
    """It must end well; what it said is shown."""
    paths = [str(Path.cwd() / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(
        command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=LIMIT
    )
    print(done.stdout)
    assert done.returncode == 0, f"{command} ended with {done.returncode}"
