"""The scripts that `make` calls."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.mark.skipif(sys.platform == "win32", reason="the scripts need bash")
def test_a_python_is_found_itself(tmp_path: Path) -> None:
    """The interpreter is named by its own file, and not by what leads to it on PATH: the link of an environment that is
    active, or a shim, may be gone or lead elsewhere at the next run, and the environments made with it do not work."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    (tmp_path / f"python{version}").symlink_to(sys.executable)
    path = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
    found = subprocess.run(
        [SCRIPTS / "find-python", version],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert Path(found.stdout.strip()) == Path(sys.executable).resolve()
