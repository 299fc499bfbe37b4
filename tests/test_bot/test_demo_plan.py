"""What a demo is to do, from its options and from what is configured."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.bot_process import SETTINGS

from bot.demo.plan import BACKENDS, Configured, DemoPlan
from bot.demo.servers import chosen_backend, is_configured
from cluster_lock.errors import ConfigError


@pytest.fixture(autouse=True)
def nothing_is_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No file and no variable of the person who runs the tests counts."""
    for name in list(os.environ):
        if name.startswith(SETTINGS):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("where", BACKENDS)
def test_without_a_configuration_the_demo_has_its_own_server(where: str) -> None:
    """Nobody said where a server is, and files need none."""
    assert not is_configured(where, None)
    assert chosen_backend(None) == "file"


@pytest.mark.parametrize(
    ("where", "variable"),
    [
        ("etcd", "ETCDCTL_ENDPOINTS"),
        ("etcd", "CLUSTER_LOCK_ETCD__ENDPOINTS"),
        ("consul", "CONSUL_HTTP_ADDR"),
        ("consul", "CLUSTER_LOCK_CONSUL__URL"),
    ],
)
def test_a_variable_names_the_server(where: str, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that says where the server is makes the demo use that one, and no other backend's does."""
    monkeypatch.setenv(variable, "http://127.0.0.2:12345")
    assert is_configured(where, None)
    assert not is_configured("consul" if where == "etcd" else "etcd", None)


def test_a_file_names_the_server(tmp_path: Path) -> None:
    """--config says backend and server; one that the demo does not know, or that is wrong, is refused."""
    file = tmp_path / "mine.yaml"
    file.write_text("backend: consul\nconsul:\n  url: http://127.0.0.2:8500\n")
    assert chosen_backend(file) == "consul"
    assert is_configured("consul", file)
    file.write_text("backend: nosuch\n")
    with pytest.raises(ConfigError):
        chosen_backend(file)


@pytest.mark.parametrize("where", BACKENDS)
@pytest.mark.parametrize("seconds", [5.0, 12.0, 20.0, 33.3, 60.0, 600.0])
def test_the_times_fit(where: str, seconds: float) -> None:
    """Whatever the seconds, the times are in order, and a leader can survive the stop that it is to survive."""
    plan = DemoPlan(backend=where, seconds=seconds)
    timing = plan.timing
    assert timing.ttl >= 2  # etcd counts in whole seconds, and refuses 1 with its usual election timeout
    assert timing.ttl == int(timing.ttl)
    fresh = timing.ttl - timing.margin - timing.stop_time
    assert plan.short_stop + timing.ttl / 4 < fresh


@pytest.mark.parametrize("where", ["etcd", "consul"])
def test_another_s_server_is_not_restarted(where: str) -> None:
    """Only a server of the demo's own is ended and started; on another one the times are what its defaults allow."""
    assert DemoPlan(backend=where).restarts_backend
    foreign = DemoPlan(backend=where, config=Configured(None))
    assert not foreign.restarts_backend
    assert foreign.timing.ttl >= (10 if where == "consul" else 5)
