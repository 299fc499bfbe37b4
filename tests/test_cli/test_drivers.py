"""`cluster-lock drivers`: what can be used here, and what to do about the rest."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from support.program import CHECKOUT

from cluster_lock import __version__
from cluster_lock.cli import main
from cluster_lock.cli.drivers import LIBRARIES
from cluster_lock.drivers import BUILTIN

WITHOUT_CLIENTS = """
import sys
from importlib import metadata
for name in ("etcd3", "grpc", "consul", "aiohttp"):
    sys.modules[name] = None
real = metadata.distribution
def distribution(name):
    if name in ("cslab-etcd3", "etcd3", "python-consul2", "py-consul", "aiohttp", "grpcio"):
        raise metadata.PackageNotFoundError(name)
    return real(name)
metadata.distribution = distribution
from cluster_lock.cli import main
sys.exit(main(["drivers", "--json"]))
"""


def installed(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, Any]]:
    assert main(["drivers", "--json"]) == 0
    return {driver["name"]: driver for driver in json.loads(capsys.readouterr().out)["drivers"]}


def test_our_own(capsys: pytest.CaptureFixture[str]) -> None:
    """Each driver of ours is listed; one whose client is there is usable, with the versions of what it uses."""
    found = installed(capsys)
    assert set(BUILTIN) == set(LIBRARIES) <= set(found)
    assert found["file"] == {
        "name": "file", "usable": True, "extra": None, "from": f"cluster-lock {__version__}", "libraries": {},
        "problem": None, "settings": ["directory"],
    }  # fmt: skip
    for name in ("etcd", "consul"):
        assert found[name]["extra"] == name
        assert found[name]["usable"] == (found[name]["problem"] is None)
        for library, version in found[name]["libraries"].items():
            assert metadata.version(library) == version


@pytest.mark.parametrize("name", ["etcd", "consul"])
def test_one_whose_client_is_not_there(name: str, tmp_path: Path) -> None:
    """A driver without its client library says what to install, and so does one of somebody else that does not load."""
    folder = tmp_path / "broken-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[cluster_lock.drivers]\nbroken = no_such_module:Driver\n")
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT_CLIENTS],
        capture_output=True,
        text=True,
        timeout=300,
        env={"PYTHONPATH": f"{CHECKOUT}:{tmp_path}"},
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    found = {driver["name"]: driver for driver in json.loads(ended.stdout)["drivers"]}
    assert not found[name]["usable"]
    assert f"pip install 'cluster-lock[{name}]'" in found[name]["problem"]
    assert found["broken"]["from"] == "broken 1.0"
    assert "no_such_module" in found["broken"]["problem"]


def test_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    """Without --json it is a table, one line for each."""
    assert main(["drivers"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["DRIVER", "USABLE", "EXTRA", "FROM", "LIBRARIES"]
    assert lines[1].split()[:2] == ["file", "yes"]


def test_settings_with_their_origins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`cluster-lock config --json` has each effective setting and where it came from, and no secret."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLUSTER_LOCK_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("TELEGRAM_BOT_TOKEN", "42:hunter2")
    Path("config.yaml").write_text("backend: etcd\nlock:\n  ttl: 20s\netcd:\n  user: alice\n  password: hunter3\n")
    assert main(["config", "--json", "--set", "lock.margin=4s"]) == 0
    printed = capsys.readouterr().out
    assert "hunter" not in printed
    content = json.loads(printed)
    origins = content["origins"]
    assert origins["lock.ttl"] == "config.yaml:3"
    assert origins["lock.margin"] == "command line"
    assert origins["telegram.token"] == "TELEGRAM_BOT_TOKEN"
    assert origins["lock.settle"] == "default"
    assert content["settings"]["etcd"]["user"] == "alice"
    assert "consul" not in content["settings"]
    flat = {
        f"{section}.{key}" for section, keys in content["settings"].items() if isinstance(keys, dict) for key in keys
    }
    assert flat <= set(origins)
