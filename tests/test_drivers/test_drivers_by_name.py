"""Drivers are found by name, ours and other people's, and nothing is loaded that was not asked for."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata

import pytest

from cluster_lock import drivers
from cluster_lock.drivers import BUILTIN, available, driver_class
from cluster_lock.drivers.file import FileDriver
from cluster_lock.drivers.memory import MemoryDriver
from cluster_lock.errors import ConfigError


def installed(monkeypatch: pytest.MonkeyPatch, *points: metadata.EntryPoint) -> None:
    monkeypatch.setattr(metadata, "entry_points", lambda **wanted: metadata.EntryPoints(points).select(**wanted))


def point(name: str, value: str) -> metadata.EntryPoint:
    return metadata.EntryPoint(name, value, drivers.GROUP)


def test_our_own_are_found() -> None:
    """Each built-in driver is a class of its own, and memory is there for tests without being offered."""
    assert driver_class("file") is FileDriver
    assert driver_class("memory") is MemoryDriver
    assert {"etcd", "consul"} <= set(BUILTIN)
    assert "memory" not in available()


def test_only_the_one_asked_for_is_loaded() -> None:
    """Opening one driver imports neither another one nor a client library that it does not need."""
    code = (
        "import sys; from cluster_lock.drivers import driver_class; driver_class('file')\n"
        "print(sorted(n for n in sys.modules if n in ('etcd3', 'consul', 'grpc', 'aiohttp', 'pydantic', 'yaml')"
        " or n in ('cluster_lock.drivers.etcd', 'cluster_lock.drivers.consul', 'cluster_lock.drivers.memory')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout == "[]\n"


def test_installed_driver_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that another distribution offers is opened by its name, and listed after ours."""
    installed(monkeypatch, point("zookeeper", "cluster_lock.drivers.memory:MemoryDriver"))
    assert driver_class("zookeeper") is MemoryDriver
    assert available() == (*BUILTIN, "zookeeper")


def test_our_own_cannot_be_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution that offers a driver under a built-in name does not get between."""
    installed(monkeypatch, point("file", "os:getcwd"))
    assert driver_class("file") is FileDriver
    assert available() == BUILTIN


@pytest.mark.parametrize(
    ("name", "hint"), [("etdc", "'etcd'"), ("Consul", "'consul'"), ("zookeper", "'zookeeper'"), ("etcd3", "'etcd'")]
)
def test_unknown_name_is_answered_with_what_was_meant(monkeypatch: pytest.MonkeyPatch, name: str, hint: str) -> None:
    """An unknown name is a configuration error that lists what there is and what was probably meant."""
    installed(monkeypatch, point("zookeeper", "cluster_lock.drivers.memory:MemoryDriver"))
    with pytest.raises(ConfigError, match=rf"{name}.*did you mean {hint}.*, {BUILTIN[-1]}, zookeeper") as error:
        driver_class(name)
    assert error.value.exit_code == 78


def test_unknown_name_without_a_likeness_has_no_hint() -> None:
    """A name that is like none is only answered with the list."""
    with pytest.raises(ConfigError, match="file, etcd, consul") as error:
        driver_class("quantum")
    assert "did you mean" not in str(error.value)


@pytest.mark.parametrize("value", ["no_such_module_here:Driver", "os:no_such_name"])
def test_broken_installed_driver_is_named(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """An installed driver that does not load is a configuration error with its place, not a traceback."""
    installed(monkeypatch, point("broken", value))
    with pytest.raises(ConfigError, match=rf"broken.*{value}.*does not load"):
        driver_class("broken")
