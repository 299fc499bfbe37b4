"""What `cluster-lock run` makes of its command line, up to the moment in which it becomes the keeper."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from cluster_lock.cli import main
from cluster_lock.keeper.plan import KeeperSpec

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no keeper on Windows")


@pytest.mark.parametrize(
    ("given", "instance", "inside"),
    [((), "here:x", "here"), (("--instance", "r1"), "r1", "r1")],
    ids=["none", "r1"],
)
def test_the_instance_is_the_commands_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: tuple[str, ...], instance: str, inside: str
) -> None:
    """A name on the command line is also that of a bot in the command, which `bot status --instance` then finds."""
    plans: list[KeeperSpec] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLUSTER_LOCK_INSTANCE", "here")
    monkeypatch.setattr("cluster_lock.cli.run.hold_signals_back", lambda: None)
    monkeypatch.setattr("cluster_lock.cli.run.become_keeper", lambda settings, plan: plans.append(plan))
    main(["run", "--lock", "x", "--set", "backend=file", *given, "--", "true"])
    [plan] = plans
    assert (plan.instance, plan.environ()["CLUSTER_LOCK_INSTANCE"]) == (instance, inside)
