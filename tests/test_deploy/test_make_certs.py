"""deploy/make-certs renews what is in use."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="make-certs needs openssl")


def fits(cert: Path, key: Path) -> None:
    ssl.create_default_context().load_cert_chain(cert, key)  # raises SSLError where they are no pair


def test_a_renewed_pair_leaves_the_old_one_whole(checkout: Path, tmp_path: Path) -> None:
    """A certificate that was deleted is made anew with a key of its own, in new files: who has the old files mounted
    keeps a pair that fits, and nothing else in the folder is touched."""
    folder, mounted = tmp_path / "certs", tmp_path / "mounted"
    mounted.mkdir()
    command = [str(checkout / "deploy/make-certs"), str(folder), "etcd", "etcd-1"]
    owner = f"{os.getuid()}:{os.getgid()}"
    variables = {**os.environ, "BOT_UID": owner, "SERVER_UID": owner}
    subprocess.run(command, env=variables, check=True, capture_output=True)
    for name in ("bot.crt", "bot.key"):
        os.link(folder / name, mounted / name)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / "bot.crt").unlink()
    subprocess.run(command, env=variables, check=True, capture_output=True)
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {name for name, content in after.items() if before.get(name) != content} == {"bot.crt", "bot.key"}
    assert before.keys() == after.keys()
    fits(folder / "bot.crt", folder / "bot.key")
    fits(mounted / "bot.crt", mounted / "bot.key")
    assert (folder / "bot.key").stat().st_mode & 0o777 == 0o600
