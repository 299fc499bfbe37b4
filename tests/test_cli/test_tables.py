"""Tables for people: aligned in a pipe, with rich at a terminal, and whole either way."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest
from support.program import CHECKOUT

from cluster_lock.cli.tables import Line, Table, show

PROGRAM = """
import sys
from cluster_lock.cli.tables import Line, Table, living, show
from cluster_lock.host.masking import keep_secret
if sys.argv[1:] == ["plain"]:
    import cluster_lock.cli.tables as tables
    tables.find_spec = lambda name: None
table = Table(("LOCK", "TERM"), right=("TERM",))
table.add(("telegram/42", "1234"))
table.add(("x\\x1b[31m", "5"), "red")
keep_secret("Se-cret" * 20)
table.add(("y" * 30 + "Se-cret" * 20, "6"))
show([Line("title", "bold"), table, Line("z" * 60 + "Se-cret" * 20)])
with living() as draw:
    draw([Line("first")])
    draw([Line("second")])
"""


def test_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    """Columns are as wide as their widest cell, and no line ends in blanks."""
    table = Table(("LOCK", "TERM"), right=("TERM",))
    table.add(("telegram/42", "1234"))
    table.add(("x", "5"))
    show([Line("title"), table])
    assert capsys.readouterr().out.splitlines() == [
        "title",
        "LOCK         TERM",
        "telegram/42  1234",
        "x               5",
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="a pseudo terminal")
@pytest.mark.parametrize("how", ["rich", "plain"])
def test_at_a_terminal(how: str) -> None:
    """At a terminal it is rich's table with colours, and a plain one where rich is not installed; what came from the
    backend steers the terminal in neither."""
    if how == "rich":
        pytest.importorskip("rich")
    ours, theirs = pty.openpty()
    environ = {"PYTHONPATH": str(CHECKOUT), "TERM": "xterm-256color", "COLUMNS": "80", "PATH": os.environ["PATH"]}
    try:
        command = [sys.executable, "-c", PROGRAM, *(["plain"] if how == "plain" else [])]
        subprocess.run(command, stdout=theirs, env=environ, timeout=300, check=True)
        os.set_blocking(ours, False)
        printed = os.read(ours, 65536).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    for text in ("title", "LOCK", "telegram/42", "1234", "x\\x1b[31m", "first", "second"):
        assert text in printed
    assert "Se-" not in printed, "masked before the line was folded"
    assert ("\x1b[1m" in printed) == (how == "rich")
