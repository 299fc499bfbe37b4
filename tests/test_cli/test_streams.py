"""What commands write, and to whom: nobody, half a reader, a full disk, and never a secret."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.bot_process import environment
from support.echo import Echo

from cluster_lock.cli.streams import spoken

pytestmark = [pytest.mark.process, pytest.mark.skipif(sys.platform == "win32", reason="descriptors as on POSIX")]

TOKEN = "123456789:AAexample-Secret_Of-A-Botxxxxxxxxxx"
CONSUL_TOKEN = "c0n5u1-t0ken-uuid-4711"
COMMAND = (sys.executable, "-m", "cluster_lock.cli")


def ended(*arguments: str, folder: Path, how: str = "", **more: str) -> subprocess.CompletedProcess[str]:
    """The command after its end. `how`: what a shell does with its descriptors."""
    line = ("sh", "-c", f'exec "$@" {how}', "sh", *COMMAND, *arguments)
    environ = environment(folder / "state", CLUSTER_LOCK_HEALTH="off", **more)
    return subprocess.run(line, cwd=folder, env=environ, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("how", ["<&-", ">&-", "2>&-", "<&- >&-", "<&- >&- 2>&-"])
def test_a_closed_descriptor_is_no_error(tmp_path: Path, how: str) -> None:
    """Started without stdin, stdout or stderr, a command does its work, says it where it can, and ends with its code;
    what it runs has all three."""
    script = "echo token $CLUSTER_LOCK_FENCING_TOKEN > out; : <&0 >&1 2>&2 && exit 5"
    done = ended("run", "--lock", "j", "--", "sh", "-c", script, folder=tmp_path, how=how)
    assert done.returncode == 5, done
    assert (tmp_path / "out").read_text() == "token 1\n"
    assert "Traceback" not in done.stderr
    assert ("leading" in done.stderr) == ("2>&-" not in how)


@pytest.mark.parametrize("arguments", ["--help", "config --schema", "--print-completion bash", "config"])
def test_half_a_reader_is_no_error(tmp_path: Path, arguments: str) -> None:
    """`| head -c 1`: no traceback, no complaint, and the code of the command."""
    line = f'"$@" {arguments} | true; test "${{PIPESTATUS[0]}}" -eq 0'
    for how in (line, line.replace("| true", ">&- "), line.replace("| true", "| head -c 1 > part")):
        done = subprocess.run(
            ["bash", "-c", how, "bash", *COMMAND],
            cwd=tmp_path, env=environment(tmp_path / "state"), capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), how


def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    """What cannot be written is told, in one sentence, and by the code."""
    done = ended("config", folder=tmp_path, how="> /dev/full")
    assert (done.returncode, done.stderr) == (1, "what there is to say cannot be written: No space left on device\n")


@pytest.mark.parametrize("status", [200, 404, 500])
def test_a_server_that_repeats_what_it_is_sent(tmp_path: Path, status: int) -> None:
    """Whatever the backend answers, no operator's command shows the token that it was sent."""
    pages = {200: lambda asked: asked}
    with Echo(status, *([pages[status]] if status in pages else [])) as echo:
        for arguments in (
            ["status"],
            ["status", "--json"],
            ["doctor", "--no-telegram"],
            ["step-down", "telegram/1"],
            ["release", "telegram/1", "--force", "--yes"],
            ["run", "--fail-fast", "--", "true"],
        ):
            done = ended(
                *arguments, folder=tmp_path, CLUSTER_LOCK_BACKEND="consul", CONSUL_HTTP_ADDR=echo.url,
                CONSUL_HTTP_TOKEN=CONSUL_TOKEN,
            )  # fmt: skip
            assert CONSUL_TOKEN not in done.stdout + done.stderr, done
            assert "Traceback" not in done.stderr, done


def test_a_server_does_not_steer_the_terminal(tmp_path: Path) -> None:
    """What a server's refusal would do to a terminal (set its title, clear it, its clipboard) is shown as text."""
    steering = "no \x1b]52;c;cm0gLXJmIH4=\x07\x1b[2J\x1b[31mall is well \x9b31m \u202e\r\nsecond"
    with Echo(400, lambda _: steering) as echo:
        for arguments in (
            ["status"],
            ["run", "--fail-fast", "--", "true"],
        ):
            done = ended(*arguments, folder=tmp_path, CLUSTER_LOCK_BACKEND="consul", CONSUL_HTTP_ADDR=echo.url)
            said = done.stdout + done.stderr
            assert "all is well" in said, done
            assert [char for char in said if not char.isprintable() and char != "\n"] == [], done


def test_what_is_printed_stays_the_same_json(capsys: pytest.CaptureFixture[str]) -> None:
    """A text with what steers a terminal is harmless as it stands, and is the same again when its JSON is read."""
    content = {"leader": "\x1b]0;owned\x07 \x9b31m \u202e \u2028 \t é"}
    with spoken():
        print(json.dumps(content, ensure_ascii=False, indent=2))
    printed = capsys.readouterr().out
    assert all(char.isprintable() or char == "\n" for char in printed)
    assert json.loads(printed) == content


def test_telegram_that_repeats_what_it_is_sent(tmp_path: Path) -> None:
    """An error page with the token in it, as it is and quoted, is shown without."""
    with Echo(502, lambda asked: asked + asked.replace(":", "%3A") + asked.replace(":", "%3a")) as echo:
        done = ended("doctor", folder=tmp_path, TELEGRAM_BOT_TOKEN=TOKEN, CLUSTER_LOCK_TELEGRAM__API=echo.url)
    assert done.stdout
    assert "Secret_Of" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("setting", "instead"),
    [
        (f"telegram.token={TOKEN}", "set TELEGRAM_BOT_TOKEN, or telegram.token_file in the configuration"),
        (f"consul.token={CONSUL_TOKEN}", "set CLUSTER_LOCK_CONSUL__TOKEN, or consul.token_file in the configuration"),
        (
            f"etcd.password={CONSUL_TOKEN}",
            "set CLUSTER_LOCK_ETCD__PASSWORD, or etcd.password_file in the configuration",
        ),
        (f"etcd.user=root:{CONSUL_TOKEN}", "set CLUSTER_LOCK_ETCD__PASSWORD, or etcd.password_file"),
    ],
)
def test_a_secret_in_the_arguments_is_refused(tmp_path: Path, setting: str, instead: str) -> None:
    """Everybody sees what a command was given: one sentence says where else a secret may be given."""
    done = ended("config", "--set", setting, folder=tmp_path)
    assert done.returncode == 78
    assert instead in done.stderr
    assert setting.partition("=")[2] not in done.stdout + done.stderr


@pytest.mark.parametrize("arguments", [["--token=hunter2"], ["--password", "hunter2"], ["--set", "hunter2"]])
def test_wrong_arguments_are_not_repeated(tmp_path: Path, arguments: list[str]) -> None:
    """What was given to an option that is none, and is called like a secret, is not in the complaint."""
    done = ended("config", *arguments, folder=tmp_path)
    assert done.returncode == 2
    assert "hunter2" not in done.stderr


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may give files away")
def test_a_detached_log_below_a_strangers_folder(tmp_path: Path) -> None:
    """No log is opened below a folder of somebody else, nor through a link, and the file behind it is untouched."""
    precious, state = tmp_path / "precious", tmp_path / "state"
    precious.write_text("keep\n")
    (state / "logs").mkdir(parents=True)
    for folder in (state, state / "logs"):
        folder.chmod(0o700)
    (state / "logs" / f"w+telegram%2F{TOKEN.partition(':')[0]}.log").symlink_to(precious)
    start = ["bot", "start", "--detach", "--instance", "w", "--app", "support.small_worker:dispatcher"]
    for owner, why in ((0, "symbolic link"), (12345, "belongs to user 12345")):
        os.chown(state / "logs", owner, owner)
        os.chown(state, owner, owner)
        done = ended(*start, folder=tmp_path, TELEGRAM_BOT_TOKEN=TOKEN)
        assert done.returncode == 77, done
        assert why in done.stderr
        assert precious.read_text() == "keep\n"
