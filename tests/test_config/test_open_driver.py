"""From settings to the driver that they choose."""

from __future__ import annotations

import argparse
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from support.settings import load_text, problems_of

from cluster_lock.cli.run import plan_for
from cluster_lock.config import driver_options, open_driver, shown, shown_text
from cluster_lock.driver import Driver
from cluster_lock.drivers.file import FileDriver
from cluster_lock.drivers.memory import MemoryDriver
from cluster_lock.errors import ConfigError
from cluster_lock.host.masking import masked


class ForeignDriver(MemoryDriver):
    def __init__(self, *, prefix: str, request_timeout: float, **options: Any) -> None:
        super().__init__(prefix=prefix)
        if "wrong" in options:
            raise TypeError("unexpected argument 'wrong'")
        self.options = options
        self.prefix = prefix


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody's driver, installed beside ours under the name `ether`."""
    point = metadata.EntryPoint("ether", f"{__name__}:ForeignDriver", "cluster_lock.drivers")

    def entry_points(**chosen: Any) -> metadata.EntryPoints:
        return metadata.EntryPoints([point]).select(**chosen)

    monkeypatch.setattr("importlib.metadata.entry_points", entry_points)
    monkeypatch.setattr(metadata.EntryPoint, "load", lambda self: ForeignDriver)


def test_the_file_driver(tmp_path: Path) -> None:
    """The default settings make a file driver in the state directory."""
    settings = load_text(tmp_path)
    driver = open_driver(settings)
    assert isinstance(driver, FileDriver)
    assert str(tmp_path / "state") in driver.backend


def test_options_of_etcd(tmp_path: Path) -> None:
    """What etcd needs is handed over, with the time limit that the timing leaves for one request."""
    settings = load_text(
        tmp_path,
        "backend: etcd\nprefix: x\netcd: {endpoints: 'a:1,b:2', user: u, password: p, ca: /ca, cert: /c, key: /k}\n",
    )
    assert driver_options(settings) == {
        "endpoints": ["a:1", "b:2"],
        "ca": Path("/ca"),
        "cert": Path("/c"),
        "key": Path("/k"),
        "user": "u",
        "password": "p",
        "prefix": "x/",
        "request_timeout": 4.0,
    }


def test_options_of_consul(tmp_path: Path) -> None:
    """What Consul needs is handed over, durations as seconds."""
    settings = load_text(
        tmp_path,
        "backend: consul\nconsul: {url: 'a:1,b:2', token: t, datacenter: d, lock_delay: 500ms, behavior: delete,"
        " checks: [c], session_node: n}\n",
    )
    assert driver_options(settings) == {
        "urls": ["a:1", "b:2"],
        "token": "t",
        "ca": None,
        "cert": None,
        "key": None,
        "datacenter": "d",
        "lock_delay": 0.5,
        "behavior": "delete",
        "checks": ["c"],
        "session_node": "n",
        "prefix": "cluster-lock/",
        "request_timeout": 4.0,
    }


@pytest.mark.parametrize("kind", ["etcd34", "etcd35", "consul"])
def test_our_drivers_take_their_options(kind: str, tmp_path: Path) -> None:
    """Each driver of ours can be made from the options that its settings lead to."""
    backend = kind.rstrip("345")
    settings = load_text(tmp_path, f"backend: {backend}\n")
    assert open_driver(settings).backend.startswith(backend)


@pytest.mark.usefixtures("installed")
def test_somebody_elses_driver(tmp_path: Path) -> None:
    """A driver that is installed beside ours gets its section as it was written, and its secrets are not shown."""
    settings = load_text(
        tmp_path,
        "backend: ether\nether:\n  url: ${URL}\n  port: 5\n  deep: {on: true, api_key: hunter2}\n  text: '5'\n",
        environ={"URL": "x:1", "CLUSTER_LOCK_ETHER__COLOUR": "blue"},
    )
    driver = open_driver(settings)
    assert isinstance(driver, ForeignDriver)
    assert driver.prefix == "cluster-lock/"
    deep = {"on": True, "api_key": "hunter2"}
    assert driver.options == {"url": "x:1", "port": 5, "deep": deep, "text": "5", "colour": "blue"}
    assert "hunter2" not in str(shown(settings))
    assert shown(settings)["ether"]["port"] == 5


@pytest.mark.usefixtures("installed")
def test_somebody_elses_driver_refuses(tmp_path: Path) -> None:
    """Settings that a foreign driver does not take are a configuration error, not a traceback."""
    settings = load_text(tmp_path, "backend: ether\nether: {wrong: 1}\n")
    with pytest.raises(ConfigError, match="ether: the driver does not take these settings"):
        open_driver(settings)


@pytest.mark.usefixtures("installed")
def test_somebody_elses_driver_that_lacks_a_verb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused before anybody leads with it, and what is missing is named."""

    class Half:
        backend = "half"

        def __init__(self, **options: Any) -> None:
            for name in vars(Driver):
                if not name.startswith("_") and name not in ("backend", "renew", "traits"):
                    setattr(self, name, None)

    monkeypatch.setattr(metadata.EntryPoint, "load", lambda self: Half)
    with pytest.raises(ConfigError, match="ether: the driver lacks traits, renew, which the contract asks for"):
        open_driver(load_text(tmp_path, "backend: ether\nether: {port: 1}\n"))


@pytest.mark.usefixtures("installed")
def test_a_foreign_section_is_no_single_value(tmp_path: Path) -> None:
    """A text in the place of another driver's section is refused, wherever it was given."""
    said = problems_of(tmp_path, "backend: ether\nether: x\n", overrides={"ether": "x"})
    assert said[0] == "config.yaml:2: ether: must be a section"
    assert said[1].startswith("command line: ether: unknown key")


@pytest.mark.usefixtures("installed")
def test_an_unknown_backend_names_all_that_are_there(tmp_path: Path) -> None:
    """A backend that nobody has is refused with the names of those that are installed."""
    (said,) = problems_of(tmp_path, "backend: eter\n")
    assert said == "config.yaml:1: backend: must be one of file, etcd, consul, redis, postgres, ether, but is 'eter'"


@pytest.mark.usefixtures("installed")
def test_secrets_in_a_list_of_a_foreign_section(tmp_path: Path) -> None:
    """A secret inside a list of another driver's section is printed nowhere, and the keeper is told what it is."""
    text = "backend: ether\nether:\n  password: pw-plain\n  servers:\n    - {host: a, password: pw-nested}\n"
    settings = load_text(tmp_path, text)
    assert "pw-" not in shown_text(settings)
    assert "pw-" not in masked("cannot log in with 'pw-plain' / 'pw-nested'")
    given = argparse.Namespace(
        instance=None, restart="never", fail_fast=False, allow_setuid=False, log_format="text", replace=False
    )
    assert {"pw-plain", "pw-nested"} <= set(plan_for(settings, ["true"], given, lock="x").secrets)
