"""Ports for servers of tests that run side by side."""

from __future__ import annotations

import os
import subprocess
import sys

from cluster_lock.testing.servers.base import free_ports

BEGINS_WHERE_WE_DO = """
import os, sys
os.getpid = lambda: int(sys.argv[1])
from cluster_lock.testing.servers.base import free_ports
ports = free_ports()
print(*(next(ports) for _ in range(20)))
"""


def test_no_port_is_given_twice() -> None:
    """A port that a process was given, and on which nothing listens yet, is not given to another one, although that
    begins to look at the same place."""
    ours = {next(free_ports()) for _ in range(10)}
    command = [sys.executable, "-c", BEGINS_WHERE_WE_DO, str(os.getpid())]
    theirs = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()
    assert len(theirs) == 20
    assert not ours & set(map(int, theirs))
