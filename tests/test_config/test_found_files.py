"""What lies in the working directory is read only where nobody else could have put it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster_lock.cli import main
from cluster_lock.config import load
from cluster_lock.errors import PermissionRefused

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="file modes")
AS_ROOT = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may give files away")
STRANGER = 12345
NAMES = pytest.mark.parametrize("name", [".env", "config.yaml"])
TEXT = {".env": "CLUSTER_LOCK_PREFIX=found/\n", "config.yaml": "prefix: found/\n"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, in an environment that says nothing else."""
    monkeypatch.delenv("CLUSTER_LOCK_CONFIG", raising=False)
    monkeypatch.setenv("CLUSTER_LOCK_STATE_DIR", str(tmp_path / "state"))
    folder = tmp_path / "here"
    folder.mkdir(mode=0o755)
    monkeypatch.chdir(folder)
    return folder


def _of_a_stranger(file: Path) -> None:
    os.chown(file, STRANGER, STRANGER)


def _through_his_link(file: Path) -> None:
    target = file.rename(file.with_name("elsewhere"))
    file.symlink_to(target)
    os.chown(file, STRANGER, STRANGER, follow_symlinks=False)


def _through_our_link_to_his(file: Path) -> None:
    (file.parent / "his").mkdir()
    target = file.rename(file.parent / "his/file")
    file.symlink_to(target)
    os.chown(target.parent, STRANGER, STRANGER)


def _writable(file: Path) -> None:
    file.chmod(0o666)


def _in_an_open_folder(file: Path) -> None:
    file.parent.chmod(0o777)


def _in_a_sticky_folder(file: Path) -> None:
    file.parent.chmod(0o1777)


@NAMES
@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(_of_a_stranger, marks=AS_ROOT),
        pytest.param(_through_his_link, marks=AS_ROOT),
        pytest.param(_through_our_link_to_his, marks=AS_ROOT),
        _writable,
        _in_an_open_folder,
        _in_a_sticky_folder,
    ],
)
def test_a_file_that_others_could_have_put_there_is_refused(
    folder: Path, name: str, spoil: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """Refused with code 77 and one sentence that names it, by every command, and nothing of it is used."""
    file = folder / name
    file.write_text(TEXT[name])
    file.chmod(0o644)
    assert load().prefix == "found/"
    spoil(file)
    with pytest.raises(PermissionRefused, match=f"{file} cannot be trusted: .*(to user 12345|others may write)"):
        load()
    assert main(["config"]) == 77
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert f"{file} cannot be trusted" in said.err
    assert main(["doctor"]) == 77
    assert f"{file} cannot be trusted" in capsys.readouterr().out


@AS_ROOT
def test_a_strangers_dotenv_does_not_beat_our_own_configuration(folder: Path, tmp_path: Path) -> None:
    """A `.env` of the working directory is looked at also where `--config` names the file."""
    ours = tmp_path / "ours.yaml"
    ours.write_text("prefix: ours/\n")
    (folder / ".env").write_text("CLUSTER_LOCK_PREFIX=his/\n")
    _of_a_stranger(folder / ".env")
    with pytest.raises(PermissionRefused, match=r"\.env cannot be trusted"):
        load(ours)


@AS_ROOT
@NAMES
def test_a_directory_that_is_wholly_somebodys_is_his_word(folder: Path, name: str) -> None:
    """In a directory of another user, as a container often has it mounted, that one's files are read."""
    (folder / name).write_text(TEXT[name])
    for each in (folder, folder / name):
        os.chown(each, STRANGER, STRANGER)
    assert load().prefix == "found/"


@AS_ROOT
def test_a_file_that_is_named_is_read_whoever_owns_it(folder: Path) -> None:
    """Who names a file says that it is meant."""
    for name, text in TEXT.items():
        (folder / name).write_text(text)
        _of_a_stranger(folder / name)
    assert load(folder / "config.yaml", dotenv=folder / ".env").prefix == "found/"
