"""Copies of the checkout, in which the code is changed and the tests run. The checkout itself is only read."""

from __future__ import annotations

import compileall
import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from py_compile import PycInvalidationMode

from .ordered import LIST, NOTES
from .places import Mutation

TESTS = ("tests/test_core", "tests/test_drivers/test_conformance_memory.py")
"""All that mutants meet: no server, no Telegram, under a minute."""
LONGEST = 1800.0
"""Seconds for all tests, on a machine that has much else to do."""
PYTEST = (
    *(sys.executable, "-m", "pytest", "-q", "-x", "--tb=line", "--import-mode=importlib", "-m", "not slow"),
    # Only the plugins that are needed: each mutant pays for what is loaded.
    *("-o", "addopts=", "-p", "no:cacheprovider", "-p", "pytest_timeout", "-p", "mutate.ordered"),
    # From a thread, which ends the process: an error in the middle of a loop that goes round is only logged.
    "--timeout-method=thread",
)


@dataclass(frozen=True)
class Ran:
    """A run of tests. `code`: pytest's, None if it was ended at its limit. `begun`: the tests, with their seconds."""

    code: int | None
    output: str
    begun: dict[str, float]


class Copy:
    def __init__(self, checkout: Path, folder: Path) -> None:
        self.folder = folder
        self._outside = folder.with_suffix(".notes")
        self._outside.mkdir()
        for part in ("cluster_lock", "tests"):
            shutil.copytree(checkout / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(checkout / "pyproject.toml", folder)
        # By content: a change within the second in which the file was compiled must not be overlooked.
        mode = PycInvalidationMode.CHECKED_HASH
        compileall.compile_dir(folder / "cluster_lock", quiet=1, invalidation_mode=mode)

    @contextlib.contextmanager
    def changed(self, mutation: Mutation) -> Iterator[tuple[str, str]]:
        """The file before and after; as before again when the block is left."""
        from cosmic_ray import mutating, plugins  # what reads the list alone does not need it

        path = self.folder / mutation.file
        before = path.read_text(encoding="utf-8")
        operator = plugins.get_operator(mutation.operator)()
        try:
            _, after = mutating.apply_mutation(path, operator, mutation.occurrence)
            yield before, after
        finally:
            path.write_text(before, encoding="utf-8")

    def run(self, limits: Mapping[str, float] | None = None, options: Sequence[str] = ()) -> Ran:
        """These tests in this order, each with its limit in seconds, default all, until the first fails."""
        notes, listed = self._outside / "notes", self._outside / "list"
        notes.write_text("")
        environ = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST_", "COV_"))}
        environ |= {
            "PYTHONPATH": f"{self.folder}{os.pathsep}{self.folder / 'tests'}",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            NOTES: str(notes),
        }
        if limits is not None:
            listed.write_text("\n".join(f"{limit:.1f} {name}" for name, limit in limits.items()))
            environ[LIST] = str(listed)
        files = TESTS if limits is None else dict.fromkeys(name.partition("::")[0] for name in limits)
        longest = LONGEST if limits is None else sum(limits.values())
        # A session of its own: neither does an interrupt from the keyboard look like the mutant's death, nor does a
        # signal that a mutant sends to its group reach us.
        with (self._outside / "output").open("w+", errors="replace") as output:
            process = subprocess.Popen(
                [*PYTEST, *options, *files],
                cwd=self.folder,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            code: int | None = None
            try:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    code = process.wait(longest)
            finally:
                # Also what the tests left running.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            output.seek(0)
            said = output.read()
        return Ran(code, said, _begun(notes.read_text()))


def _begun(notes: str) -> dict[str, float]:
    moments = [line.partition(" ")[::2] for line in notes.splitlines()]
    ends = [float(moment) for moment, _ in moments[1:]]
    ends += [float(moments[-1][0])] if moments else []
    return {name: end - float(moment) for (moment, name), end in zip(moments, ends, strict=True) if name}
