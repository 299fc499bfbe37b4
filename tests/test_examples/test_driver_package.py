"""The driver package of the examples: it keeps the contract, and works where it is installed as people install it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.docker import CHECKOUT

PACKAGE = CHECKOUT / "docs/examples/driver_package"

pytestmark = [pytest.mark.process, pytest.mark.slow]


def test_it_keeps_the_contract(tmp_path: Path) -> None:
    """Its own tests pass, which are the conformance suite and nothing else."""
    path = os.pathsep.join([str(PACKAGE), *filter(None, sys.path)])
    there = (f"--basetemp={tmp_path / 'pytest'}", str(PACKAGE / "tests"))
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0", *there]
    ended = subprocess.run(
        tests, env={**os.environ, "PYTHONPATH": path}, cwd=CHECKOUT, capture_output=True, text=True, timeout=500
    )
    assert ended.returncode == 0, ended.stdout
    passed = re.search(r"(\d+) passed", ended.stdout)
    assert passed is not None
    assert int(passed[1]) >= 66


def _wheel(source: Path, folder: Path) -> Path:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=source, check=True, capture_output=True, timeout=300)
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command `cluster-lock` of a fresh environment with the two wheels in it. What these depend on is taken from
    the environment of the tests: the library and the driver are not."""
    if (uv := shutil.which("uv")) is None:
        pytest.skip("needs uv")
    folder = tmp_path_factory.mktemp("installed")
    theirs = _wheel(Path(shutil.copytree(PACKAGE, folder / "package")), folder / "theirs")
    if (CHECKOUT / "cluster_lock/__init__.py").exists():
        ours = _wheel(CHECKOUT, folder / "ours")
    else:  # the tests run on a wheel, which lies beside them
        (ours,) = (CHECKOUT.parent / "dist").glob("cluster_lock-*.whl")
    home = folder / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True, timeout=300)
    python = home / "bin/python"
    install = [uv, "pip", "install", "-q", "--python", str(python), "--no-index", "--no-deps", str(ours), str(theirs)]
    subprocess.run(install, check=True, timeout=300, env={**os.environ, "UV_REQUIRE_HASHES": "0"})
    (site,) = home.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    from_wheel = "import cluster_lock, sqlite_lock; print(cluster_lock.__file__, sqlite_lock.__file__)"
    found = subprocess.run(
        [str(python), "-I", "-c", from_wheel], check=True, capture_output=True, text=True, timeout=60
    )
    assert found.stdout.split() == [str(site / "cluster_lock/__init__.py"), str(site / "sqlite_lock.py")]
    return home / "bin/cluster-lock"


def _run(program: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": os.environ["PATH"], "CLUSTER_LOCK_STATE_DIR": str(folder / "state"), "HOME": str(folder)}
    command = [str(program), *arguments]
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=120, check=False)


def test_a_real_process_leads_by_it(program: Path, tmp_path: Path) -> None:
    """Installed as a wheel and chosen by config.yaml, it keeps the lock of a command, which sees itself lead."""
    (tmp_path / "config.yaml").write_text(f"backend: sqlite\nsqlite:\n  path: {tmp_path}/locks.db\n")
    led = _run(program, tmp_path, "run", "--lock", "jobs", "--", str(program), "status", "--json")
    assert led.returncode == 0, led.stderr
    (lock,) = json.loads(led.stdout)["locks"]
    assert (lock["name"], lock["state"]) == ("jobs", "led")
    after = _run(program, tmp_path, "status", "--json")
    assert json.loads(after.stdout)["backend"] == f"sqlite {tmp_path}/locks.db"
    assert [each["state"] for each in json.loads(after.stdout)["locks"]] != ["led"]


def test_it_is_listed(program: Path, tmp_path: Path) -> None:
    """`cluster-lock drivers` has it, with its distribution and its settings."""
    found = json.loads(_run(program, tmp_path, "drivers", "--json").stdout)["drivers"]
    (listed,) = [driver for driver in found if driver["name"] == "sqlite"]
    assert listed["usable"]
    assert listed["from"] == "sqlite-lock 1.0"
    assert listed["settings"] == ["path"]


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ("sqlite: {file: x}", "config.yaml:2: sqlite.file: unknown key, allowed are path"),
        ("sqlite: {path: x}", "config.yaml:2: sqlite.path: must be an absolute path"),
        ("", "sqlite.path: is missing"),
    ],
)
def test_its_settings_are_checked(program: Path, tmp_path: Path, section: str, said: str) -> None:
    """A wrong setting is one sentence with its place, and the exit code of wrong settings."""
    (tmp_path / "config.yaml").write_text(f"backend: sqlite\n{section}\n")
    ended = _run(program, tmp_path, "doctor")
    assert ended.returncode == 78
    assert said in ended.stderr + ended.stdout
