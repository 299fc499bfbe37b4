"""The lock files are what they are said to be: exact, with hashes, no address, and of this pyproject.toml."""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LOCKED = sorted((ROOT / "requirements").glob("*.txt"))

_PINNED = re.compile(
    r"([A-Za-z0-9._-]+)==(\S+?)( ; [^\\]+)? \\(\n    --hash=sha256:[0-9a-f]{64} \\)*\n    --hash=sha256:[0-9a-f]{64}\n"
)

_EXTRAS = {
    "consul-py": "aiogram consul-py etcd testing",
    "demo": "aiogram cli consul etcd health postgres redis testing",
    "etcd3-legacy": "aiogram consul etcd3-legacy testing",
    "image": "aiogram consul etcd health postgres redis",
    "mutate": "testing",
    "oldest": "aiogram cli consul etcd health postgres redis testing",
    "py315": "cli consul etcd health testing",
    "test": "aiogram cli consul etcd health postgres redis testing",
    "typing": "aiogram cli consul etcd health postgres redis testing",
}
_GROUPS = {
    "build": "build",
    "consul-py": "test",
    "etcd3-legacy": "test",
    "lint": "lint",
    "mutate": "mutate test",
    "oldest": "test",
    "py315": "test",
    "test": "test",
    "tox": "tox",
    "typing": "typing test",
}


def pins(name: str) -> dict[str, Version]:
    text = (ROOT / f"requirements/{name}.txt").read_text(encoding="utf-8")
    return {canonicalize_name(found[1]): Version(found[2]) for found in _PINNED.finditer(text)}


def of_the_library(name: str) -> Iterator[Requirement]:
    """What pyproject.toml says of the library and of the extras that the environment has."""
    yield from map(Requirement, PROJECT["project"]["dependencies"])
    for extra in _EXTRAS[name].split():
        yield from map(Requirement, PROJECT["project"]["optional-dependencies"][extra])


def of_the_tools(name: str) -> Iterator[Requirement]:
    for group in _GROUPS.get(name, "").split():
        yield from (Requirement(each) for each in PROJECT["dependency-groups"][group] if isinstance(each, str))


@pytest.mark.parametrize("path", LOCKED, ids=lambda path: path.stem)
def test_every_line_is_exact_and_has_hashes(path: Path) -> None:
    """A lock file is pins with their hashes and nothing else: no option, no address, no path of a machine."""
    assert path.stem in _EXTRAS.keys() | _GROUPS.keys()
    assert _PINNED.sub("", path.read_text(encoding="utf-8")) == ""


@pytest.mark.parametrize("path", LOCKED, ids=lambda path: path.stem)
def test_they_are_of_this_project(path: Path) -> None:
    """What pyproject.toml asks for is locked, in a release that it allows; else `make lock` was forgotten."""
    locked = pins(path.stem)
    wanted = [*(of_the_library(path.stem) if path.stem in _EXTRAS else ()), *of_the_tools(path.stem)]
    assert wanted
    names = [canonicalize_name(each.name) for each in wanted]
    wrong = [
        str(each)
        for name, each in zip(names, wanted, strict=True)
        if name not in locked or not each.specifier.contains(locked[name])
    ]
    assert wrong == []


def test_the_oldest_are_the_floors() -> None:
    """Where the oldest libraries are tested, each that pyproject.toml names is in the lowest release that it allows."""
    locked = pins("oldest")
    floors = {
        canonicalize_name(each.name): Version(part.version)
        for each in of_the_library("oldest")
        for part in each.specifier
        if part.operator == ">="
    }
    assert {name: locked[name] for name in floors} == floors


def test_the_backend_that_builds_the_wheel_is_locked() -> None:
    """The build takes the release that requirements/build.txt and the environments of the tests agree on."""
    (asked,) = map(Requirement, PROJECT["build-system"]["requires"])
    assert asked.specifier.contains(pins("build")["hatchling"])
    assert {pins(name)["hatchling"] for name in ("build", "test", "oldest", "py315")} == {pins("build")["hatchling"]}


_WITHOUT = (
    "import sys; sys.modules.update(dict.fromkeys({names!r})); import pytest; sys.exit(pytest.main(sys.argv[1:]))"
)


@pytest.mark.slow
def test_the_tests_of_the_newest_python_load_nothing_that_it_lacks() -> None:
    """What cannot be installed on the newest Python is imported by none of the tests that run there, at the top of no
    module; else the whole run ends there."""
    lacking = sorted(each.replace("-", "_") for each in pins("test").keys() - pins("py315").keys())
    assert {"aiogram", "psycopg"} <= set(lacking)
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini")
    settings = dict(line.split(" = ", 1) for line in tox["testenv"]["set_env"].splitlines() if " = " in line)
    collect = (sys.executable, "-c", _WITHOUT.format(names=lacking), "--collect-only", "-qq", "-p", "no:cacheprovider")
    done = subprocess.run(
        [*collect, *settings["plain_tests"].split()],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
