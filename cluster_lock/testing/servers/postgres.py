"""PostgreSQL, one server: a primary, or a replica of one."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from .base import READY_WITHIN, Server, ServerFailed, ServerTLS, free_ports, wait_for
from .tools import find_tool

OWNER = "postgres"
"""The superuser of each server, who needs no password."""
IS_ROOT = sys.platform != "win32" and os.geteuid() == 0


def as_user(user: str, program: Path) -> list[str]:
    """What to put before the command line of `program`, so that it runs as `user` where we are root, also in a folder
    that others may not enter."""
    if sys.platform == "win32" or not IS_ROOT:
        return []
    import pwd

    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise ServerFailed("PostgreSQL refuses to run as root, and there is no setpriv to become another user with")
    group = str(pwd.getpwnam(user).pw_gid)
    # The kernel forgets who must die with whom when the user changes.
    command = [setpriv, f"--reuid={user}", f"--regid={group}", "--clear-groups", "--pdeathsig=KILL"]
    if any(not folder.stat().st_mode & stat.S_IXOTH for folder in program.resolve().parents):
        # It asks access(2) about its own files, which forgets capabilities unless it is told not to.
        command += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search", "--securebits=+no_setuid_fixup"]
    return command


class PostgresServer(Server):
    """One PostgreSQL server with the database `postgres`.

    `release` is "15" or "18" (None: whichever is installed). `fast`: nothing is written through to the disk, so that a
    crash of the machine would lose data; a crash of the server does not. `tls`: it speaks TLS as well, and demands it
    of all but its owner; with a `client_cert` a client is the role that its certificate names. `primary`: it begins as
    its replica. It runs as `user` where we are root, since PostgreSQL refuses to be root.
    """

    def __init__(
        self,
        *,
        release: str | None = None,
        fast: bool = True,
        tls: ServerTLS | None = None,
        primary: PostgresServer | None = None,
        user: str = "nobody",
        host: str = "127.0.0.1",
        port: int | None = None,
        data_dir: Path | None = None,
        wrapper: Sequence[str] = (),
    ) -> None:
        self._program = find_tool("postgres", "postgres", release)
        super().__init__(data_dir=data_dir, wrapper=wrapper)
        self.host = host
        self.port = port or next(free_ports())
        self.tls = tls
        self._primary = primary
        self._anew = False
        self._fast = fast
        self._user = user
        self.data = self.data_dir / "data"
        self.title = f"postgres {release or ''} at {self.host}:{self.port}".replace("  ", " ")
        if IS_ROOT:
            self.data_dir.chmod(0o711)

    @property
    def dsn(self) -> str:
        """As in `dsn:` of config.yaml, as the owner."""
        return self.dsn_of(OWNER)

    def dsn_of(self, user: str, password: str | None = None) -> str:
        secret = f" password={password}" if password else ""
        return f"host={self.host} port={self.port} user={user} dbname=postgres{secret}"

    def _command(self) -> list[str]:
        if self._anew and self.data.exists():
            self.lose_data()
        if not (self.data / "PG_VERSION").exists():
            self._make_data()
        self._anew = False
        options = {
            "listen_addresses": self.host,
            "port": self.port,
            "unix_socket_directories": "",
            "max_connections": 300,
            "shared_buffers": "16MB",
            "wal_level": "replica",
            "wal_retrieve_retry_interval": "500ms",  # a primary that was started anew is found soon
            "logging_collector": "off",
        }
        if self._fast:
            options |= {"fsync": "off", "full_page_writes": "off"}
        if self.tls:
            options |= {"ssl": "on", "ssl_cert_file": self.data / "tls.crt", "ssl_key_file": self.data / "tls.key"}
            options |= {"ssl_ca_file": self.data / "tls.ca"}
        set_by = [f"-c{name}={value}" for name, value in options.items()]
        return [*self._as_user(), str(self._program), f"-D{self.data}", *set_by]

    def _as_user(self) -> list[str]:
        return as_user(self._user, self._program)

    def _own(self, path: Path) -> None:
        if IS_ROOT:
            shutil.chown(path, self._user)

    def _make_data(self) -> None:
        self.data.mkdir(mode=0o700, exist_ok=True)
        self._own(self.data)
        if self._primary:
            self._call("pg_basebackup", "-D", self.data, "-R", "-X", "stream", "-c", "fast", "-d", self._primary.dsn)
            return
        self._call("initdb", "-D", self.data, "-U", OWNER, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        kind = "hostssl" if self.tls else "host"
        proof = "cert" if self.tls and self.tls.client_cert else "scram-sha-256"
        rules = (f"host all {OWNER} all trust", f"host replication {OWNER} all trust", f"{kind} all all all {proof}")
        (self.data / "pg_hba.conf").write_text("\n".join(rules) + "\n")
        if self.tls:
            for source, name in ((self.tls.cert, "tls.crt"), (self.tls.key, "tls.key"), (self.tls.ca, "tls.ca")):
                shutil.copy(source, self.data / name)
                (self.data / name).chmod(0o600)
                self._own(self.data / name)

    def _call(self, program: str, *arguments: str | Path) -> None:
        command = [*self._as_user(), str(self._program.with_name(program)), *map(str, arguments)]
        made = subprocess.run(command, capture_output=True, text=True, cwd="/", check=False)
        if made.returncode != 0:
            raise ServerFailed(f"{program} failed: {made.stderr.strip() or made.stdout.strip()}")

    def _is_ready(self) -> bool:
        try:
            # Another server on this port would answer as well, while ours is about to end for it.
            told = (self.data / "postmaster.pid").read_text().splitlines()
            return told[0] == str(self.pid) and self.sql("SELECT 1", at_most=1) == "1"
        except (OSError, IndexError, ServerFailed):
            return False

    def sql(self, text: str, *, at_most: float = 15, port: int | None = None) -> str:
        """What `psql` prints for it as the owner, bare. Raises `ServerFailed` with its complaint."""
        try:
            answer = subprocess.run(
                [
                    str(self._program.with_name("psql")),
                    *("-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", self.dsn),
                ],
                input=text,
                env={"PGCONNECT_TIMEOUT": "5"},
                capture_output=True,
                text=True,
                timeout=at_most,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise ServerFailed(f"{self} did not answer psql within {at_most:g} s") from error
        if answer.returncode != 0:
            raise ServerFailed(f"psql: {answer.stderr.strip()}")
        return answer.stdout.strip()

    @property
    def is_primary(self) -> bool:
        """False, too, while it answers nothing."""
        try:
            return self.sql("SELECT pg_is_in_recovery()") == "f"
        except ServerFailed:
            return False

    def follow(self, primary: PostgresServer) -> None:
        """With its next start it is a replica of that one, and has forgotten what it was."""
        self._primary, self._anew = primary, True

    def wait_follows(self) -> None:
        """Return when it hears from its primary."""
        told = "SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming'"
        wait_for(lambda: self.sql(told) == "1" or None, READY_WITHIN, f"{self.title} does not follow")

    def promote(self) -> None:
        """Make a primary of a replica; return when it takes writes."""
        if self.sql("SELECT pg_promote()") != "t":
            raise ServerFailed(f"{self} was not promoted")

    # Each connection has a process of its own in a session of its own: a signal to a group would miss it.

    def pause(self) -> None:
        """SIGSTOP to the server and each process of it: connections are accepted and nothing is answered."""
        super().pause()
        if sys.platform != "win32":
            self._signal(self._children(), signal.SIGSTOP)

    def resume(self) -> None:
        if sys.platform == "linux":
            self._signal(self._children(), signal.SIGCONT)
        super().resume()

    def kill(self) -> None:
        if sys.platform != "linux" or not self.running:
            super().kill()
            return
        super().pause()  # or it would start others meanwhile
        children = self._children()
        super().kill()
        self._signal(children, signal.SIGKILL)
        ended = ("Z", "")
        wait_for(lambda: all(_state(child) in ended for child in children) or None, 10, f"{self} leaves processes")

    def stop(self) -> None:
        """SIGINT: PostgreSQL would wait for its clients after a SIGTERM."""
        if self.running:
            self.resume()
            os.kill(self.pid, signal.SIGINT)
            self.wait_ended()

    def wait_ended(self, at_most: float = 10.0) -> None:
        """Return when it has ended, by SIGKILL if it has not within so many seconds."""
        process = self._process
        if process is not None:
            try:
                process.wait(at_most)
            except subprocess.TimeoutExpired:
                self.kill()

    def lose_data(self) -> None:
        """Throw its data away; it must not run. The next start begins with nothing."""
        shutil.rmtree(self.data)

    def _signal(self, pids: Sequence[int], number: signal.Signals) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _children(self) -> list[int]:
        if sys.platform != "linux":
            raise ServerFailed("the processes of a PostgreSQL server are found on Linux only")
        found = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [int(pid) for pid in found.split()]


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""
