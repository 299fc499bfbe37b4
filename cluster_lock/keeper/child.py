"""A command under the init, as the keeper sees it: signals for it, the end of all of it, its exit status."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NoReturn, Self

from cluster_lock import clock
from cluster_lock.errors import ConfigError
from cluster_lock.host.patience import Patience
from cluster_lock.lease.guard import end_process
from cluster_lock.process.instance_lock import process_started

from .again import starting
from .init import CORE, LEAVE, NO_NEW_PRIVILEGES, PROCESS, WITHOUT, become_subreaper, descendants, reap, sweep
from .left_over import HOPELESS, mark
from .names import LOCALE, MARK

INIT = Path(__file__).with_name("init.py").read_text(encoding="utf-8")
"""Read once: the file may be of another version when a command is started again, and would not understand us."""
INIT_LIMIT = 0.3
"""Seconds for the init to end everything; it takes milliseconds."""


class Child:
    """Started with `await Child.start(...)`; `await wait()` comes back when nothing of it is left."""

    def __init__(self, process: asyncio.subprocess.Process, control: int) -> None:
        self.started_at = clock.now()
        self._process = process
        self._control = control
        self._gone = asyncio.ensure_future(self._wait())

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        environ: Mapping[str, str],
        *,
        scope: str = "",
        fds: Sequence[int] = (),
        until: float | None = None,
        core: int | None = None,
        numbered: str | None = None,
        allow_setuid: bool = False,
    ) -> Self:
        """Run `command` with this environment, in a session of its own; it gets our stdin, stdout and stderr, and `fds`
        as 3, 4...

        `scope`: of its keeper's mark. `until`: as for `until()`. `core`: its limit for core dumps in bytes, if not
        ours. `numbered`: the variable of `environ` that is to say the command's number too, after a colon.
        `allow_setuid`: it may start programs of another user, which we could not end unless we are root.

        To be called in the main thread. A command that cannot be run ends with 127, as in a shell. Raises ConfigError
        if it is too long, and NotStarted where the system has no room for another process: nothing of it is left then.
        """
        with starting("another process"):
            _strangers()
            become_subreaper()
            # Not for the inits: they end by themselves, and what they stand over with them.
            marked = f"{MARK}={mark(scope)}"
            hears, control = os.pipe()
        os.set_blocking(control, False)
        options = [marked, *([f"{CORE}{core}"] if core is not None else [])]
        options.append(f"{LOCALE}={environ[LOCALE]}" if LOCALE in environ else f"{WITHOUT}{LOCALE}")
        if numbered is not None:
            options.append(f"{PROCESS}{numbered}")
        if not allow_setuid and os.geteuid() != 0:
            options.append(NO_NEW_PRIVILEGES)
        try:
            if until is not None:
                os.write(control, _until(until))
            with starting("another process"), _not_too_long(command[0]):
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    *("-I", "-S", "-c", INIT, str(hears), str(os.getpid())),
                    *(str(fd) for fd in fds),
                    *options,
                    *("--", *command),
                    env=dict(environ),
                    pass_fds=(hears, *fds),
                    start_new_session=True,
                )
        except BaseException:
            os.close(control)
            await _end_all()  # it may have been started, and could not be watched
            raise
        finally:
            os.close(hears)
        return cls(process, control)

    @property
    def pid(self) -> int:
        """Of the init, which leads the session."""
        return self._process.pid

    @property
    def code(self) -> int | None:
        """The command's exit status (128 + a signal's number), None while anything of it is left."""
        return self._gone.result() if self._gone.done() else None

    def signal(self, number: int) -> None:
        """Pass a signal on to the command itself."""
        self._tell(b"%d\n" % number)

    def until(self, deadline: float) -> None:
        """Nothing of it may be left at this moment (`clock.now()`): its init sees to it, also while we are stopped."""
        self._tell(_until(deadline))

    async def end(self) -> int:
        """End everything that it started, at once; its exit status, when nothing of it is left.

        What cannot be ended (it hangs in the kernel, or is another user's) keeps the lock until the lease ends: then
        this process ends without giving it back.
        """
        self._tell(b"kill\n")
        if not await self.ended_within(INIT_LIMIT):
            # The init does not do its work: stopped, or in trouble. Without it all of it is ours.
            self._kill()
        if not await self.ended_within(HOPELESS):
            _give_up()
        return await self.wait()

    async def wait(self) -> int:
        """Its exit status, when nothing of it is left."""
        return await asyncio.shield(self._gone)

    async def ended_within(self, seconds: float) -> bool:
        """Wait for its end, but not longer, as far as we are awake."""
        await Patience().wait([self._gone], seconds)
        return self._gone.done()

    def _tell(self, line: bytes) -> None:
        if self._control >= 0:
            try:
                os.write(self._control, line)
            except (BrokenPipeError, BlockingIOError):
                # It is just ending; or it is stopped, and has not read 64 KiB of this: then its end of file ends it.
                self._close()

    def _kill(self) -> None:
        if self._process.returncode is None:
            # asyncio's own kill() looks whether it has ended, and would take its exit status from who waits for it.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def _close(self) -> None:
        if self._control >= 0:
            os.close(self._control)
            self._control = -1

    async def _wait(self) -> int:
        code = await self._process.wait()
        self._close()
        # Only if the init was killed is something left, and this process is its parent now.
        await _end_all()
        return code if code >= 0 else 128 - code


@contextlib.contextmanager
def _not_too_long(program: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno != errno.E2BIG:
            raise
        raise ConfigError([f"{program}: its arguments and the environment are too long for this system"]) from error


async def _end_all() -> None:
    if reap() is not None and not await asyncio.to_thread(sweep, _strangers_left, HOPELESS, LEAVE):
        _give_up()


@cache
def _strangers() -> frozenset[tuple[int, int | None]]:
    """What was below this process before it started anything, and since when: a shell that becomes a keeper may have
    started something before, and that is not ours to end. To be called first before anything is started."""
    return frozenset((pid, process_started(pid)) for pid in descendants())


def _strangers_left() -> set[int]:
    try:
        return {pid for pid, since in _strangers() if process_started(pid) == since}
    except OSError:  # no descriptor to look with: each may live
        return {pid for pid, _ in _strangers()}


def _give_up() -> NoReturn:
    left = ", ".join(map(str, descendants(_strangers_left())))
    end_process(f"what it started cannot be ended (process {left})")


def _until(deadline: float) -> bytes:
    return b"until %.9f\n" % deadline
