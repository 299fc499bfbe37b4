"""Run as a script: `die_with_parent.py PARENT_PID PROGRAM [ARGUMENT...]` becomes PROGRAM, which dies with its parent.

A program of its own, not a `preexec_fn`: that would run Python between fork and exec, beside gRPC's threads.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h; survives the exec below


def main() -> None:
    parent, program = int(sys.argv[1]), sys.argv[2]
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        # It may have died before the kernel was asked: then nothing would tell us any more.
        if os.getppid() != parent:
            sys.exit(1)
    os.execv(program, sys.argv[2:])


main()
