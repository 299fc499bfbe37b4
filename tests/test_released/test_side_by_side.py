"""This version beside one that was released: as in an upgrade, one instance after the other."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
import zipfile
from collections.abc import Mapping
from contextlib import AsyncExitStack
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
from support.aio import until
from support.backends import Backend
from support.stores import open_session

from cluster_lock.admin.step_down import ask_to_step_down

TESTS = Path(__file__).parents[1]
BACKENDS = [
    pytest.param("etcd35", marks=pytest.mark.etcd),
    pytest.param("consul", marks=pytest.mark.consul),
]


@pytest.fixture(scope="session")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the library as it was in 0.1.0."""
    folder = tmp_path_factory.mktemp("released")
    zipfile.ZipFile(TESTS / "released" / "cluster_lock-0.1.0-py3-none-any.whl").extractall(folder)
    return folder


class Member:
    """A process of one version; `said`: what it said, in order."""

    def __init__(self, backend: Backend, prefix: str, instance: str, library: Path) -> None:
        address = backend.section["url"] if backend.name == "consul" else backend.section["endpoints"][0]
        script = str(TESTS / "support" / "member.py")
        # -P: without the script's own folder on the path.
        self._command = [sys.executable, "-P", script, backend.name, address, prefix, instance]
        self._environ = {**os.environ, "PYTHONPATH": str(library)}
        self.instance, self.said = instance, list[Mapping[str, Any]]()

    async def __aenter__(self) -> Self:
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(*self._command, stdin=pipe, stdout=pipe, env=self._environ)
        self._reading = asyncio.ensure_future(self._read())
        await self.says("version")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        await self._reading

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self.said.append(json.loads(line))

    async def says(self, what: str, since: int = 0) -> Mapping[str, Any]:
        """What it has said of that kind last, waiting for the first after so many sayings."""
        found: list[Mapping[str, Any]] = []

        def heard() -> bool:
            found[:] = [each for each in self.said[since:] if each["said"] == what]
            return bool(found)

        await until(heard)
        return found[-1]

    async def hears(self, line: str, answer: str) -> Mapping[str, Any]:
        assert self._process.stdin is not None
        since = len(self.said)
        self._process.stdin.write(line.encode() + b"\n")
        return await self.says(answer, since)

    @property
    def terms(self) -> list[tuple[float, float, int]]:
        """From when to when, and with which token."""
        ends = {each["token"]: each["at"] for each in self.said if each["said"] == "ends"}
        leads = [each for each in self.said if each["said"] == "leads"]
        return [(each["at"], ends.get(each["token"], float("inf")), each["token"]) for each in leads]


async def stands_by(onlooker: Member, other: Member) -> None:
    """Until one sees the other as a standby."""

    async def seen() -> bool:
        names = (await onlooker.hears("look", "sees"))["standbys"]
        # 0.1.0 shows the key, which names the process.
        return any(name == other.instance or name.startswith(f"{other.instance}.") for name in names)

    await until(seen)


@pytest.mark.parametrize("backend", BACKENDS, indirect=True, scope="session")
@pytest.mark.parametrize("first_is_old", [True, False], ids=["old leads", "new leads"])
async def test_two_versions_side_by_side(backend: Backend, released: Path, first_is_old: bool) -> None:
    """A process of 0.1.0 and one of this version see each other, give the lock to one another when they stop, with
    tokens that only grow, and never lead at the same moment."""
    prefix = f"cluster-lock/{secrets.token_hex(4)}/"
    old, new = Member(backend, prefix, "old", released), Member(backend, prefix, "new", TESTS.parent)
    first, second = (old, new) if first_is_old else (new, old)
    async with first:
        await first.says("leads")
        async with second:
            versions = {name: await member.says("version") for name, member in (("old", old), ("new", new))}
            assert versions["old"]["version"] == "0.1.0"
            assert versions["old"]["file"].startswith(str(released))
            assert not versions["new"]["file"].startswith(str(released))
            await stands_by(first, second)
            await stands_by(second, second)
            assert (await second.hears("look", "sees"))["leader"] == first.instance
            await first.hears("stop", "gone")
            await second.says("leads")
            again = Member(backend, prefix, first.instance, released if first_is_old else TESTS.parent)
            async with again:
                await stands_by(second, again)
                async with open_session(backend, prefix, "operator") as operator:
                    await ask_to_step_down(operator, "x", by="a test", timeout=20)
                await again.says("leads")
                await second.hears("stop", "gone")
                await again.hears("stop", "gone")
    terms = sorted([*first.terms, *second.terms, *again.terms])
    assert len(terms) >= 3
    assert all(one[1] <= other[0] and one[2] < other[2] for one, other in pairwise(terms)), terms


@pytest.mark.parametrize("backend", BACKENDS, indirect=True, scope="session")
@pytest.mark.parametrize("first_is_old", [True, False], ids=["old leads", "new leads"])
async def test_the_other_version_takes_over_from_one_that_was_killed(
    backend: Backend, released: Path, first_is_old: bool
) -> None:
    """When the process of one version is killed, the other one leads with a larger token."""
    prefix = f"cluster-lock/{secrets.token_hex(4)}/"
    libraries = [released, TESTS.parent] if first_is_old else [TESTS.parent, released]
    first, second = (
        Member(backend, prefix, name, library) for name, library in zip(("a", "b"), libraries, strict=True)
    )
    async with AsyncExitStack() as stack:
        async with first:
            await first.says("leads")
            await stack.enter_async_context(second)
            await stands_by(first, second)
        await second.says("leads")
    assert second.terms[-1][2] > first.terms[-1][2]
