"""One clock, the machine's, that goes on while the machine sleeps; and the tests' own, while they say so."""

from __future__ import annotations

import re
import subprocess
import sys
import time

import pytest

from cluster_lock import clock


@pytest.mark.skipif(sys.platform != "linux", reason="this system has no clock that counts its sleep")
def test_it_is_the_clock_that_counts_sleep() -> None:
    """Where there is a boot clock, `now()` is that one and no other."""
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    now = clock.now()
    assert before <= now <= time.clock_gettime(time.CLOCK_BOOTTIME)
    assert clock.NAME == "CLOCK_BOOTTIME"


def test_without_a_boot_clock_it_is_the_monotonic_one() -> None:
    """Where there is none, as on macOS and Windows, the monotonic clock serves, and says so."""
    code = (
        "import sys, time, importlib; from cluster_lock import clock\n"
        "sys.platform = 'darwin'; importlib.reload(clock)\n"
        "before = time.monotonic(); now = clock.now(); assert before <= now <= time.monotonic(); print(clock.NAME)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert (done.stdout, done.stderr) == ("monotonic\n", "")


def test_another_process_reads_the_same_clock() -> None:
    """A moment may be handed to another process of the host: it lies where it should between two of that one's."""
    code = "from cluster_lock import clock; print(clock.now())"
    before = clock.now()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    assert before <= float(done.stdout) <= clock.now()


def test_replaced_clock_is_put_back() -> None:
    """A test's own clock counts while its block runs, inner ones first, and the real one is back after an error too."""
    assert clock.is_real()
    with clock.replaced(lambda: 1.0):
        assert not clock.is_real()
        with clock.replaced(lambda: 2.0):
            assert clock.now() == 2.0
        assert clock.now() == 1.0
    with pytest.raises(LookupError), clock.replaced(lambda: 3.0):
        raise LookupError
    assert clock.is_real()


def test_text_is_utc_with_milliseconds() -> None:
    """The wall clock is shown in UTC, to the millisecond, in a form that sorts."""
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", clock.utc_text())
