"""InstanceLock between real processes."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.aio import PATIENCE
from support.program import Program

from cluster_lock.errors import AlreadyRunning, ConfigError, PermissionRefused
from cluster_lock.keeper.slots import instances_here, slot
from cluster_lock.process import BotLock, InstanceInfo, InstanceLock, force_release_lock
from cluster_lock.process.instance_lock import process_started

posix = pytest.mark.skipif(sys.platform == "win32", reason="owners and modes of files")
as_root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away")

HOLD = """
import sys
from cluster_lock.process import InstanceLock
with InstanceLock("web-1", sys.argv[1]):
    print("held")
    sys.stdin.readline()
print("released")
"""


def test_the_second_is_told_who_runs(tmp_path: Path) -> None:
    """The refusal names the process, since when, the lock file, and what to do; its exit code is 73."""
    with Program(HOLD, str(tmp_path), "--token=42:SECRETSECRET") as program:
        assert program.line() == "held"
        lock = InstanceLock("web-1", tmp_path)
        with pytest.raises(AlreadyRunning) as refused:
            lock.take()
        text = str(refused.value)
        assert f"process {program.pid} " in text
        assert f"kill {program.pid}" in text
        assert str(lock.path) in text
        assert "since 20" in text
        assert "--instance" not in text
        assert "SECRET" not in text
        assert refused.value.exit_code == 73
        program.tell("")
        assert program.end() == 0
        lock.take()
        lock.release()


def test_acquire_answers_and_take_raises(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """`acquire` says True, or False with a warning that names the holder; only `take` and `with` raise."""
    lock, other = InstanceLock("web-1", tmp_path), InstanceLock("web-1", tmp_path)
    assert lock.acquire()
    assert not other.acquire()
    assert f"process {os.getpid()} " in caplog.text
    assert not lock.acquire()
    lock.release()
    assert other.acquire()
    other.release()


def test_the_instance_of_a_bot_is_stopped_by_its_command(tmp_path: Path) -> None:
    """The refusal of a bot's instance names the command that stops it, and how to have a standby."""
    with slot("web-1", "telegram/42", tmp_path), pytest.raises(AlreadyRunning) as refused:
        slot("web-1", "telegram/42", tmp_path).take()
    assert "(`cluster-lock bot stop --instance web-1`)" in str(refused.value)
    assert "--instance NAME" in str(refused.value)
    assert "kill" not in str(refused.value)


NAMELESS = """
import sys
from cluster_lock.process import InstanceLock
lock = InstanceLock()
print(lock.name, flush=True)
with lock:
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_a_program_has_the_name_of_its_file(tmp_path: Path) -> None:
    """Without a name it is the resolved path of what was started, by a link or as a module, and from whatever folder;
    another file is another name, and both are no instances."""
    folder, state = tmp_path / "there", tmp_path / "state"
    folder.mkdir()
    file, link = folder / "main.py", tmp_path / "link.py"
    file.write_text(NAMELESS)
    link.symlink_to(file)
    (folder / "other.py").write_text(NAMELESS)
    environ = {**os.environ, "CLUSTER_LOCK_STATE_DIR": str(state), "PYTHONPATH": os.pathsep.join(sys.path)}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=folder,
            env=environ,
            input="\n",
            capture_output=True,
            text=True,
            timeout=300,
        )

    with subprocess.Popen(
        [sys.executable, str(file)], env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == f"{file}\n"
        assert first.stdout.readline() == "held\n"
        for same in ([str(link)], ["main.py"], ["-m", "main"]):
            assert f"the program {file} is already running on this host: process {first.pid} " in run(*same).stderr
        assert run("other.py").stdout == f"{folder / 'other.py'}\nheld\n"
        assert instances_here(state) == set()
        first.communicate("\n")
    assert "give a name" in run("-c", NAMELESS).stderr


def test_a_program_far_down_has_a_name_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path that is too long for the name of a file leads to a name all the same, and to one of its own."""
    names = []
    for last in "ab":
        monkeypatch.setattr(sys.modules["__main__"], "__file__", f"/{'д' * 60}/{last}.py", raising=False)
        with InstanceLock(directory=tmp_path) as lock:
            names.append(lock.name)
            assert f"{last}.py" in lock.title
    assert len({*names}) == 2


def test_a_bots_lock_is_that_of_its_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bot of a token, by default of the one that is set, has one lock on this host; no file bears the token."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLUSTER_LOCK_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("TELEGRAM_BOT_TOKEN", "42:SECRETSECRET")
    with BotLock(), BotLock("43:SECRETSECRET"):
        with pytest.raises(AlreadyRunning, match="bot 42 is already running"), BotLock("42:ANOTHERONE"):
            pass
        assert not any("SECRET" in file.name for file in tmp_path.rglob("*"))
        with pytest.raises(AlreadyRunning):
            force_release_lock()
    assert BotLock().acquire()
    monkeypatch.delenv("TELEGRAM_BOT_TOKEN")
    with pytest.raises(ConfigError, match="TELEGRAM_BOT_TOKEN"):
        BotLock()
    with pytest.raises(ValueError, match="no token of a bot"):
        BotLock("SECRET")


def test_what_a_killed_bot_left_is_cleared_away(tmp_path: Path) -> None:
    """`force_release_lock` refuses while the holder lives, then says whether it left something."""
    source = HOLD.replace("InstanceLock", "BotLock").replace('"web-1"', '"42:SECRETSECRET"')
    with Program(source, str(tmp_path)) as program:
        assert program.line() == "held"
        with pytest.raises(AlreadyRunning, match=f"process {program.pid} "):
            force_release_lock("42:SECRETSECRET", tmp_path)
        os.kill(program.pid, signal.SIGKILL)
        program.end()
    assert force_release_lock("42:SECRETSECRET", tmp_path)
    assert not force_release_lock("42:SECRETSECRET", tmp_path)


def test_after_a_crash_it_is_simply_taken(tmp_path: Path) -> None:
    """A killed process leaves nothing that anybody must remove, whatever pid its files name."""
    with Program(HOLD, str(tmp_path)) as program:
        assert program.line() == "held"
        os.kill(program.pid, signal.SIGKILL)
        program.end()
    lock = InstanceLock("web-1", tmp_path)
    stale = lock.info()
    assert stale is not None
    assert stale.pid == program.pid
    with lock:
        info = lock.info()
        assert info is not None
        assert info.pid == os.getpid()


def test_a_living_pid_in_the_file_decides_nothing(tmp_path: Path) -> None:
    """A pid that was given to another process, or means another one in this container, keeps nobody out."""
    with InstanceLock("web-1", tmp_path) as lock:
        pass
    lock.path.with_suffix(".json").write_text(
        json.dumps({"pid": os.getppid(), "since": "2020-01-01T00:00:00Z", "host": "x", "command": "x"})
    )
    with InstanceLock("web-1", tmp_path):
        pass


def test_twice_in_one_process(tmp_path: Path) -> None:
    """A second lock of the same name is refused inside the same process too, and so is the same lock again."""
    with InstanceLock("web-1", tmp_path) as lock:
        with pytest.raises(AlreadyRunning, match=f"process {os.getpid()} "):
            InstanceLock("web-1", tmp_path).take()
        with pytest.raises(AlreadyRunning):
            lock.take()
    with InstanceLock("web-1", tmp_path):
        pass


def test_other_instances_run_beside_it(tmp_path: Path) -> None:
    """Another name is another lock, whatever characters it has."""
    names = ["web-1", "web-2", "../web-1", "web/1", "web 1", "вэб", ".", ".."]
    locks = [InstanceLock(name, tmp_path) for name in names]
    for lock in locks:
        assert lock.acquire()
    assert {lock.path.parent for lock in locks} == {tmp_path / "instances"}
    for lock in locks:
        lock.release()
        lock.release()


@pytest.mark.parametrize("name", ["", "x" * 201])
def test_a_name_must_be_one(name: str, tmp_path: Path) -> None:
    """A name that no file could have is refused when the lock is made."""
    with pytest.raises(ValueError, match="1 to 200"):
        InstanceLock(name, tmp_path)


@posix
def test_its_files_are_private(tmp_path: Path) -> None:
    """Lock file and particulars are for this user alone, whatever the umask."""
    before = os.umask(0)
    try:
        with InstanceLock("web-1", tmp_path / "new") as lock:
            files = [lock.path, lock.path.with_suffix(".json")]
            assert [stat.S_IMODE(file.stat().st_mode) for file in files] == [0o600, 0o600]
            assert stat.S_IMODE(lock.path.parent.stat().st_mode) == 0o700
            assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
    finally:
        os.umask(before)


@posix
def test_an_open_folder_is_refused(tmp_path: Path) -> None:
    """A folder in which others may put files is refused with a sentence; exit code 77."""
    tmp_path.chmod(0o777)
    with pytest.raises(PermissionRefused, match="others may write") as refused:
        InstanceLock("web-1", tmp_path).take()
    assert refused.value.exit_code == 77


@posix
def test_an_open_lock_file_is_refused(tmp_path: Path) -> None:
    """A lock file that others may write to is refused with a sentence."""
    with InstanceLock("web-1", tmp_path) as lock:
        pass
    lock.path.chmod(0o666)
    with pytest.raises(PermissionRefused, match="others may write to the lock file"):
        lock.take()


@posix
@as_root
def test_a_foreign_lock_file_is_refused(tmp_path: Path) -> None:
    """A lock file of another user is refused, and named, even where root could take it."""
    with InstanceLock("web-1", tmp_path) as lock:
        pass
    os.chown(lock.path, 12345, -1)
    with pytest.raises(PermissionRefused, match=r"belongs to another user \(uid 12345\)"):
        lock.take()


@posix
def test_a_link_is_not_followed(tmp_path: Path) -> None:
    """A symbolic link where the lock file should be is refused, not followed."""
    with InstanceLock("web-1", tmp_path) as lock:
        pass
    lock.path.unlink()
    lock.path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermissionRefused):
        lock.take()
    assert not (tmp_path / "elsewhere").exists()


INFO = {
    "pid": 1,
    "since": "",
    "host": "h",
    "command": "c",
    "namespace": "n",
    "started": 1,
    "health": None,
    "ready": True,
}
WRONG: list[dict[str, Any]] = [
    {"pid": "1"}, {"pid": True}, {"pid": -1}, {"pid": 10**30}, {"pid": None}, {"since": 5}, {"host": ["h"]},
    {"command": None}, {"namespace": {}}, {"started": "1"}, {"started": 1.5}, {"health": 7}, {"ready": "yes"},
    {"boot": 7},
]  # fmt: skip


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"[]", b'{"pid": 1}', b"\xff\xfe", b'{"a": 1, "b": 2}', b"[" * 100_000, b'{"a":' * 50_000),
        *(json.dumps({**INFO, **wrong}).encode() for wrong in WRONG),
    ],
    ids=range(8 + len(WRONG)),
)
def test_damaged_particulars_only_make_the_message_poorer(content: bytes, tmp_path: Path) -> None:
    """Whatever stands in the file beside the lock, the refusal is a refusal."""
    with InstanceLock("web-1", tmp_path) as lock:
        file = lock.path.with_suffix(".json")
        file.write_bytes(content)
        with pytest.raises(AlreadyRunning, match="has not said which"):
            InstanceLock("web-1", tmp_path).take()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_has_nothing_of_it(tmp_path: Path) -> None:
    """A child that outlives its parent does not keep the name, and a child that leaves the block does not free it."""
    source = """
import os, sys
from cluster_lock.process import InstanceLock
lock = InstanceLock("web-1", sys.argv[1])
lock.take()
if os.fork() == 0:
    lock.release()
    print(f"child {os.getpid()}")
    sys.stdin.readline()
    os._exit(0)
sys.stdin.readline()
os._exit(0)
"""
    with Program(source, str(tmp_path)) as program:
        child = int(program.line().removeprefix("child "))
        lock = InstanceLock("web-1", tmp_path)
        with pytest.raises(AlreadyRunning, match=f"process {program.pid} "):
            lock.take()
        os.kill(program.pid, signal.SIGKILL)
        os.kill(child, 0)
        # The child holds the pipes open, so only the process itself is waited for.
        program.process.wait(PATIENCE)
        lock.take()
        lock.release()
        os.kill(child, signal.SIGKILL)
        program.end()


def test_a_holder_in_another_container_is_named_as_such(tmp_path: Path) -> None:
    """A pid of another pid namespace is not offered to `kill`."""
    with InstanceLock("web-1", tmp_path) as lock:
        info = lock.info()
        assert isinstance(info, InstanceInfo)
        file = lock.path.with_suffix(".json")
        file.write_text(json.dumps({**json.loads(file.read_text()), "namespace": "pid:[1]"}))
        with pytest.raises(AlreadyRunning, match="another container") as refused:
            InstanceLock("web-1", tmp_path).take()
        assert "kill" not in str(refused.value)


@pytest.mark.parametrize(
    ("said", "here"),
    [
        ({"host": "its-name-before"}, True),
        ({"boot": "5b0b5d4e-0000-4000-8000-000000000000"}, False),
        ({"boot": ""}, True),
        ({"boot": "", "host": "another"}, False),
    ],
    ids=["renamed", "another-host-of-this-name", "version-0.1", "version-0.1-elsewhere"],
)
@pytest.mark.skipif(sys.platform != "linux", reason="the kernel says which run of it this is")
def test_a_host_is_known_by_more_than_its_name(said: dict[str, str], here: bool, tmp_path: Path) -> None:
    """A holder is of this host, and its pid is offered to `kill`, also after the host was renamed, and not if another
    host has this one's name."""
    with InstanceLock("web-1", tmp_path) as lock:
        file = lock.path.with_suffix(".json")
        file.write_text(json.dumps({**json.loads(file.read_text()), **said}))
        info = lock.info()
        assert info is not None
        assert info.here is here
        with pytest.raises(AlreadyRunning) as refused:
            InstanceLock("web-1", tmp_path).take()
        assert (f"`kill {os.getpid()}`" in str(refused.value)) is here


def test_the_state_directory_is_the_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a directory the lock lives where the program keeps its state."""
    monkeypatch.setenv("CLUSTER_LOCK_STATE_DIR", str(tmp_path / "state"))
    with InstanceLock("web-1") as lock:
        assert lock.path == tmp_path / "state" / "instances" / "web-1.lock"


def test_a_look_says_whether_it_is_held(tmp_path: Path) -> None:
    """Held or not is what the lock says, no matter whom the file names: a holder that could not write, one that
    crashed, one of another container that is gone."""
    lock, other = InstanceLock("web-1", tmp_path), InstanceLock("web-1", tmp_path)
    file = lock.path.with_suffix(".json")
    assert other.look() == (False, None)
    with lock:
        held, info = other.look()
        assert (held, info) == (True, lock.info())
        left = json.loads(file.read_text())
        file.unlink()
        assert other.look() == (True, None)
    file.write_text(json.dumps({**left, "namespace": "pid:[1]"}))
    held, info = other.look()
    assert not held
    assert info is not None


@posix
def test_a_look_keeps_nobody_from_taking_it(tmp_path: Path) -> None:
    """One that starts in the very moment of a look has the name all the same."""
    import fcntl

    class Started(InstanceLock):
        """The look at it is over when it looks itself."""

        def info(self) -> InstanceInfo | None:
            looking.close()
            return super().info()

    with InstanceLock("web-1", tmp_path) as lock:
        pass
    with lock.path.open("rb") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH | fcntl.LOCK_NB)
        with Started("web-1", tmp_path):
            assert looking.closed


def test_it_is_ready_when_it_says_so(tmp_path: Path) -> None:
    """A holder is not ready before it has said so, and one that holds the name no more says nothing."""
    lock = InstanceLock("web-1", tmp_path)
    with lock:
        info = lock.info()
        assert info is not None
        assert not info.ready
        lock.say()
        info = lock.info()
        assert info is not None
        assert info.ready
    lock.say()
    assert lock.info() is None


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a look takes no descriptor")
def test_who_cannot_look_does_not_say_that_nobody_is_there() -> None:
    """Without a descriptor to look with, a process that runs is not called one that has ended."""
    import resource

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            process_started(os.getpid())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert process_started(os.getpid())
