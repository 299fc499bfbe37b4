"""Which client library the Consul driver finds, and what it says about those that do not serve. Needs no server."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import cluster_lock

OPEN = """
    import asyncio
    from cluster_lock.drivers.consul import ConsulDriver
    from cluster_lock.errors import DriverMissing
    try:
        asyncio.run(ConsulDriver(["http://127.0.0.1:8500"], request_timeout=1).open())
    except DriverMissing as error:
        print(error.exit_code, error)
    else:
        print("opened")
"""
FIT = """
class ConsulException(Exception): pass
class Consul:
    class KV: pass
    class Session: pass
"""


def run_without_packages(folder: Path, files: dict[str, str], source: str) -> str:
    """What `source` prints in an interpreter that has the library, the standard library and `files`, nothing else."""
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content)
    (folder / "cluster_lock").symlink_to(Path(cluster_lock.__file__).parent)
    paths = f"import sys; sys.path.insert(0, {str(folder)!r})\n"
    command = [sys.executable, "-S", "-E", "-W", "error", "-c", paths + textwrap.dedent(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def distribution(name: str) -> dict[str, str]:
    return {f"{name.replace('-', '_')}-1.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n"}


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"consul/__init__.py": "", "consul/base.py": FIT}, ["aiohttp", "pip install 'cluster-lock[consul]'"]),
        ({}, ["'consul'", "python-consul2 or py-consul", "pip install 'cluster-lock[consul]'"]),
        ({"consul.py": "x = 1\n"}, ["'consul'", "python-consul2 or py-consul"]),
        (
            {"consul/__init__.py": "", "consul/base.py": "class Consul: pass\n"},
            ["consul/base.py", "python-consul2 or py-consul"],
        ),
        (distribution("python-consul"), ["python-consul", "uninstall", "pip install 'cluster-lock[consul]'"]),
        (
            distribution("python-consul2") | distribution("py-consul"),
            ["python-consul2 and py-consul are installed", "uninstall"],
        ),
        (
            distribution("python-consul") | distribution("py-consul"),
            ["py-consul and python-consul are installed", "uninstall"],
        ),
    ],
    ids=["no aiohttp", "none", "a module of that name", "another consul.base", "the old one", "both", "old beside new"],
)
def test_library_that_does_not_serve(tmp_path: Path, files: dict[str, str], says: list[str]) -> None:
    """Whichever of the libraries is missing, wrong or there twice: one sentence that says so and what to do."""
    printed = run_without_packages(tmp_path, files, OPEN)
    assert printed.startswith("78 "), printed
    assert "\n" not in printed
    for words in says:
        assert words in printed


def test_nothing_is_imported_before_it_is_needed(tmp_path: Path) -> None:
    """The driver's module and its constructor load neither the client library nor aiohttp."""
    source = """
        from cluster_lock.drivers.consul import ConsulDriver
        driver = ConsulDriver(["http://127.0.0.1:8500"], request_timeout=1)
        print(driver.backend, sorted({"consul", "aiohttp", "requests", "yarl"} & set(sys.modules)))
    """
    assert run_without_packages(tmp_path, {}, source) == "consul http://127.0.0.1:8500 []"
