"""The section of somebody else's driver, where that driver names a model of it."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field, SecretStr
from support.settings import load_text, problems_of

from cluster_lock.cli import main
from cluster_lock.config import driver_options, origins, shown, shown_text
from cluster_lock.host.masking import kept_secrets

pytestmark = pytest.mark.usefixtures("installed")


class Sea(BaseModel):
    depth: int = 3


class EtherSettings(BaseModel):
    url: str
    port: int = Field(default=80, ge=1, le=65_535)
    pass_phrase: SecretStr | None = None
    sea: Sea = Sea()


class EtherDriver:
    settings_model: Any = EtherSettings


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver under the name `ether`."""
    points = metadata.EntryPoints([metadata.EntryPoint("ether", f"{__name__}:EtherDriver", "cluster_lock.drivers")])
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **chosen: points.select(**chosen))
    monkeypatch.setattr(metadata.EntryPoint, "load", lambda self: EtherDriver)


def test_what_the_model_makes_is_what_the_driver_gets(tmp_path: Path) -> None:
    """Values, defaults and secrets of the model are the driver's keywords, wherever they were written."""
    text = "backend: ether\nether:\n  url: x\n  pass_phrase: open sesame\n"
    settings = load_text(tmp_path, text, environ={"CLUSTER_LOCK_ETHER__PORT": "81"})
    options = driver_options(settings)
    assert options.pop("request_timeout") == 4.0
    assert options == {"url": "x", "port": 81, "pass_phrase": "open sesame", "sea": Sea(), "prefix": "cluster-lock/"}
    assert shown(settings)["ether"]["port"] == 81
    assert origins(settings)["ether.port"] == "CLUSTER_LOCK_ETHER__PORT"
    assert "sesame" not in shown_text(settings)
    assert "open sesame" in kept_secrets()


def test_each_wrong_setting_is_one_sentence_with_its_key(tmp_path: Path) -> None:
    """What is wrong is told with file, line and path, beside what is wrong elsewhere, and never with a secret."""
    text = (
        "backend: ether\nlock: {ttl: never}\nether:\n  port: 0\n  pass_phrase: [open]\n  ulr: x\n  sea: {depth: deep}\n"
    )
    said = problems_of(tmp_path, text)
    assert said[0].startswith("config.yaml:2: lock.ttl: ")
    assert said[1] == "config.yaml:4: ether.port: must be at least 1"
    assert said[2].startswith("config.yaml:5: ether.pass_phrase: ")
    assert said[3:] == [
        "config.yaml:6: ether.ulr: unknown key, did you mean url?",
        "config.yaml:7: ether.sea.depth: must be a whole number",
        "ether.url: is missing",
    ]
    assert "open" not in "".join(said)


def test_a_section_that_is_not_there(tmp_path: Path) -> None:
    """What the driver cannot do without is asked for although nobody wrote the section."""
    assert problems_of(tmp_path, "backend: ether\n") == ["ether.url: is missing"]


def test_a_section_of_a_driver_that_is_not_chosen(tmp_path: Path) -> None:
    """Nobody asks what is in it: it may be of a host whose backend is another one."""
    assert load_text(tmp_path, "backend: file\nether: {port: 0}\n").backend == "file"


@pytest.mark.parametrize("command", ["doctor", "config", "status"])
def test_commands_say_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """Each command that reads the settings says it, and ends as with any wrong setting."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLUSTER_LOCK_STATE_DIR", str(tmp_path / "state"))
    Path("config.yaml").write_text("backend: ether\nether: {url: x, port: many}\n")
    assert main([command]) == 78
    printed = capsys.readouterr()
    assert "ether.port: must be a whole number" in printed.out + printed.err


def test_a_model_that_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A driver that names something else as its model is a driver that cannot be used, with the reason."""
    monkeypatch.setattr(EtherDriver, "settings_model", {"url": str})
    (said,) = problems_of(tmp_path, "backend: ether\nether: {url: x}\n")
    assert said.startswith("config.yaml:1: backend: the driver 'ether' names {'url'")
    assert main(["drivers"]) == 0
    assert "it must be a pydantic model" in capsys.readouterr().out


def test_drivers_lists_the_keys(capsys: pytest.CaptureFixture[str]) -> None:
    """`drivers --json` has the keys of each section, as far as the driver says."""
    assert main(["drivers", "--json"]) == 0
    assert '"pass_phrase"' in capsys.readouterr().out
