"""Wrong settings: every problem at once, each with its place, its key, and what would be right."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest
from support.settings import load_text, problems_of

from cluster_lock.config import Settings, load
from cluster_lock.errors import ConfigError

PARTS = "letters, digits and . _ @ : - in parts with one slash after each"
FORM = "a duration is a number with ms, s, m or h behind it, such as 15s"


def test_everything_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    """One run names each problem of file, variables and command line, in the order of the file."""
    said = problems_of(
        tmp_path,
        """\
backend: etdc
prefix: /x y
fencing_floor: many
lock:
  ttl: 15
  margn: 3s
  poll_timeout: 3s
  drain: 5 parsecs
telegram:
  on_conflict: retyr
  max_concurrent: 0
  test_environment: perhaps
etcd: 15s
consul:
  url: []
  lock_delay: 2m
  cert: /x
  checks: {a: b}
  token: ${NOPE}
""",
        environ={"CLUSTER_LOCK_LOCK__SETTLE": "3", "CLUSTER_LOCK_LOCK__TLL": "3s"},
        overrides={"lock.stop": "1s", "instance": "a b"},
    )
    assert said == [
        "config.yaml:1: backend: must be one of file, etcd, consul, redis, postgres, but is 'etdc'",
        f"config.yaml:2: prefix: must be {PARTS}, but is '/x y'",
        "config.yaml:3: fencing_floor: must be a whole number, but is 'many'",
        f"config.yaml:5: lock.ttl: the unit is missing: {FORM}, but is '15'",
        "config.yaml:6: lock.margn: unknown key, did you mean margin?",
        "config.yaml:7: lock.poll_timeout: unknown key, did you mean telegram.poll_timeout?",
        f"config.yaml:8: lock.drain: the unit 'parsecs' is not known: {FORM}, but is '5 parsecs'",
        "config.yaml:10: telegram.on_conflict: must be 'retry', 'step_down' or 'exit', but is 'retyr'",
        "config.yaml:11: telegram.max_concurrent: must be at least 1, but is '0'",
        "config.yaml:12: telegram.test_environment: must be true or false, but is 'perhaps'",
        "config.yaml:13: etcd: must be a section with endpoints, ca, cert, key, user, password, password_file",
        "config.yaml:15: consul.url: must name at least one address",
        "config.yaml:16: consul.lock_delay: must be at most 60s, but is '2m'",
        "config.yaml:17: consul.cert: needs key beside it",
        "config.yaml:18: consul.checks: must be a list",
        "config.yaml:19: consul.token: the variable NOPE is not set; ${NOPE:-default} gives a default",
        "CLUSTER_LOCK_LOCK__TLL: unknown key, did you mean ttl?",
        f"CLUSTER_LOCK_LOCK__SETTLE: the unit is missing: {FORM}, but is '3'",
        "command line: lock.stop: unknown key, did you mean lock.stop_time?",
        "command line: instance: must be up to 128 letters, digits and any of . _ @ -, as a host name, but is 'a b'",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lock: {ttl: 3s, margin: 3s}", "config.yaml:1: lock.margin: margin (3 s) must be less than ttl (3 s)"),
        ("lock:\n  ttl: 2s", "config.yaml:2: lock.ttl: margin (3 s) must be less than ttl (2 s)"),
        ("lock:\n  stop_time: 4s", "config.yaml:2: lock.stop_time: stop_time (4 s) must not exceed margin (3 s)"),
        ("lock:\n  drain: 0s", "config.yaml:2: lock.drain: drain must be more than 0"),
        ("telegram:\n  poll_timeout: 1m", "config.yaml:2: telegram.poll_timeout: poll_timeout (60 s) must be at most"),
        ("telegram:\n  grace: 0ms", "config.yaml:2: telegram.grace: telegram_grace must be more than 0"),
    ],
)
def test_durations_that_do_not_fit_together(text: str, said: str, tmp_path: Path) -> None:
    """A wrong order of durations is found before anything starts, at the line that somebody wrote."""
    assert problems_of(tmp_path, text)[0].startswith(said)


def test_durations_are_compared_although_others_are_wrong(tmp_path: Path) -> None:
    """A margin above the ttl is told beside a drain that is no duration, and no default is blamed for it."""
    said = problems_of(tmp_path, "lock:\n  drain: x\n  ttl: 5s\n  margin: 6s\n")
    assert [line.split(":")[1] for line in said] == ["2", "4"]
    said = problems_of(tmp_path, "lock:\n  ttl: 60\n  margin: 20s\n")
    assert [line.split(":")[1] for line in said] == ["2"]


def test_settings_made_by_hand_are_compared_too() -> None:
    """Settings that nobody loaded are held to the same rules, with the keys that do not fit together."""
    with pytest.raises(ValueError, match=r"etcd\.cert: needs key beside it; lock\.margin: margin \(3 s\)"):
        Settings.model_validate({"etcd": {"cert": "/c"}, "lock": {"ttl": "3s"}})


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("a: b: c", 1, "is not YAML: mapping values are not allowed here"),
        ("backend: file\n\tlock: x", 2, "is not YAML"),
        ("backend: file\nbackend: etcd", 2, "backend: is there twice, first in line 1"),
        ("lock:\n  ttl: 5s\n  margin: 1s\n  ttl: 6s", 4, "lock.ttl: is there twice, first in line 2"),
        ("backend: [file", 1, "is not YAML"),
        ("- a\n- b", 1, "must be a mapping"),
        ("just text", 1, "must be a mapping"),
        ("? [a, b]\n: c", 1, "has a key that is not a text"),
        ("instance: !!python/object/apply:os.system [id]", 1, "instance: has a YAML tag, which is not allowed here"),
        ("instance: !secret x", 1, "instance: has a YAML tag"),
        ("backend: *nothing", 1, "is not YAML: found undefined alias"),
        ("backend: file\n---\nbackend: etcd", 2, "is not YAML"),
        ('instance: "\\UFFFFFFFF"', 1, "holds an escape that names no character"),
        ('instance: "a\\0b"', 1, "instance: holds a character that cannot be printed"),
        ('instance: "\\uD800"', 1, "instance: holds a character that cannot be printed"),
        ("instance: a\x01b", 1, "holds a character that YAML does not allow"),
        ("instance: [a]", 1, "instance: must be a single value"),
        ("consul: {url: [[http://a]]}", 1, "consul.url: must be a list of single values"),
        ("<<: {backend: etcd}", 1, "<<: unknown key"),
        ("prefix: ${", 1, "prefix: has a ${ that is neither"),
        ("prefix: ${A-B}", 1, "prefix: has a ${ that is neither"),
        ("prefix: ${A:-${B}}", 1, "prefix: has a ${ that is neither"),
        ("prefix: a//b", 1, "prefix: must be"),
        ("instance: ..", 1, "instance: must be up to 128"),
        ("lock: {ttl: 25h}", 1, "lock.ttl: is too long: at most 24h"),
        ("lock: {ttl: -5s}", 1, "lock.ttl: a duration is"),
        (f"lock: {{ttl: {'9' * 400}h}}", 1, "lock.ttl: a duration is"),
        (f"fencing_floor: {'9' * 5000}", 1, "fencing_floor: must be a whole number"),
        ("fencing_floor: -1", 1, "fencing_floor: must be at least 0"),
        ("etcd: {endpoints: 2379}", 1, "etcd.endpoints: must be an address"),
        ("etcd: {endpoints: 'http:/x'}", 1, "etcd.endpoints: must be an address"),
        ("consul: {url: 127.0.0.1:8500/v1}", 1, "consul.url: must be an address"),
        (f"fencing_floor: {2**62}", 1, "fencing_floor: must be at most 5e+15"),
        ("telegram: {api: nonsense://x}", 1, "telegram.api: must be an address"),
        ("telegram: {api: 'http://x:99999'}", 1, "telegram.api: must be an address"),
        ("telegram: {token_file: /no/such/file}", 1, "telegram.token_file: /no/such/file: cannot be read: No such"),
        ("telegram: {token_file: '~no-such-user/x'}", 1, "telegram.token_file: ~no-such-user/x: cannot be read"),
        ("telegram: {token_file: /dev/null}", 1, "telegram.token_file: /dev/null must hold one line, the secret"),
        ("telegram: {token_file: /dev/zero}", 1, "telegram.token_file: /dev/zero: is larger than 256 KiB"),
        ("backend: etcd\netcd: {user: root}", 2, "etcd.user: needs password beside it"),
    ],
)
def test_wrong_files(text: str, line: int, said: str, tmp_path: Path) -> None:
    """Whatever is wrong with a file is said with its line, in one sentence."""
    (problem,) = problems_of(tmp_path, text)
    assert problem.startswith(f"config.yaml:{line}: {said}")


def test_the_companion_of_an_unreadable_secret_is_asked_for(tmp_path: Path) -> None:
    """A password file that is not there, and its missing user, are told at once, each with its line."""
    said = problems_of(tmp_path, "backend: etcd\netcd:\n  ca: /ca\n  password_file: /no/such/file\n")
    reason = "/no/such/file: cannot be read: No such file or directory"
    assert said == [
        f"config.yaml:4: etcd.password_file: {reason}",
        "config.yaml:4: etcd.password_file: needs user beside it",
    ]


def test_a_secret_is_given_once(tmp_path: Path) -> None:
    """A token and a token_file in one layer contradict each other."""
    (said,) = problems_of(tmp_path, "telegram:\n  token: '1:a'\n  token_file: /dev/null\n")
    assert said == "config.yaml:3: telegram.token_file: give token or token_file, not both"


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x,x,x,x,x,x,x,x,x]\n"
        + "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in itertools.pairwise("abcdefgh")),
        "a: &a [*a]",
        "a: &a {b: *a}",
        "[" * 5000,
        "{a: " * 5000,
        "".join(f"k{number}: 1\n" for number in range(20_000)),
    ],
    ids=["laughs", "endless list", "endless mapping", "deep lists", "deep mappings", "many keys"],
)
def test_files_made_to_exhaust(text: str, tmp_path: Path) -> None:
    """A file that would unfold without end, or is nested or filled beyond reason, is refused with a sentence."""
    said = problems_of(tmp_path, text)
    assert said == ["config.yaml:1: is nested too deeply, or has more than 10000 values"]


def test_a_huge_file_is_refused(tmp_path: Path) -> None:
    """A file that nobody writes by hand is not parsed."""
    assert problems_of(tmp_path, "# " + "x" * 300_000) == ["config.yaml: is larger than 256 KiB"]


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    """A file that is not UTF-8 is refused with the line where that begins."""
    file = tmp_path / "config.yaml"
    file.write_bytes(b"backend: file\ninstance: caf\xe9\n")
    with pytest.raises(ConfigError) as refused:
        load(file, environ={})
    assert refused.value.problems == (f"{file}:2: is not UTF-8 text",)


def test_what_is_not_a_file(tmp_path: Path) -> None:
    """A folder, and a path that cannot be one, are named as such."""
    with pytest.raises(ConfigError, match=f"{tmp_path}: cannot be read: Is a directory"):
        load(tmp_path, environ={})
    with pytest.raises(ConfigError, match="cannot be read"):
        load(Path("a\0b"), environ={})


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="file modes")
def test_an_unreadable_file(tmp_path: Path) -> None:
    """A file that this user may not read is named."""
    file = tmp_path / "config.yaml"
    file.touch(mode=0)
    user = os.geteuid()
    if user == 0:  # who may read everything
        os.seteuid(65534)
    try:
        with pytest.raises(ConfigError, match=f"{file}: cannot be read: Permission denied"):
            load(file, environ={})
    finally:
        os.seteuid(user)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("A=1\nCLUSTER_LOCK_BACKEND etcd\n", ".env:2: is not NAME=VALUE"),
        ("A=1\n-CLUSTER_LOCK_BACKEND=etcd\n", ".env:2: is not NAME=VALUE"),
        ("CLUSTER_LOCK_PREFIX='b\n", ".env:1: has a quote that does not end"),
        ("CLUSTER_LOCK_LOCK__TTL=5\n", f".env:1: CLUSTER_LOCK_LOCK__TTL: the unit is missing: {FORM}, but is '5'"),
        ("CLUSTER_LOCK_ETDC__USER=5\n", ".env:1: CLUSTER_LOCK_ETDC__USER: unknown key, did you mean etcd?"),
    ],
)
def test_wrong_dotenv_files(text: str, said: str, tmp_path: Path) -> None:
    """What is wrong in .env is told with its line."""
    assert problems_of(tmp_path, dotenv=text) == [said]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("CLUSTER_LOCK_BAKEND", "unknown key, did you mean backend?"),
        ("CLUSTER_LOCK_TTL", "is no setting, did you mean CLUSTER_LOCK_LOCK__TTL?"),
        ("CLUSTER_LOCK_LOCK_TTL", "is no setting, did you mean CLUSTER_LOCK_LOCK__TTL?"),
        (
            "CLUSTER_LOCK_TOKEN_FILE",
            "is no setting, did you mean CLUSTER_LOCK_TELEGRAM__TOKEN_FILE or C",
        ),
        ("CLUSTER_LOCK_CONSUL__ADDRESS", "unknown key, allowed are url, token,"),
        ("CLUSTER_LOCK_NOSUCH__KEY", "unknown key, allowed are lock, telegram, file, etcd, consul, redis"),
    ],
)
def test_misspelt_variables(name: str, said: str, tmp_path: Path) -> None:
    """A variable that was meant for us and is misspelt is an error, not ignored."""
    (problem,) = problems_of(tmp_path, environ={name: "x"})
    assert problem.startswith(f"{name}: {said}")


@pytest.mark.parametrize("quotes", ["'", '"'])
def test_quotes_that_became_part_of_a_token_are_said(quotes: str, tmp_path: Path) -> None:
    """A token with the quotes of a file that somebody else read (Docker's --env-file) is refused by that word."""
    (problem,) = problems_of(tmp_path, environ={"TELEGRAM_BOT_TOKEN": f"{quotes}42:SECRETSECRET{quotes}"})
    assert problem.startswith("TELEGRAM_BOT_TOKEN: has quotes around it")
    assert "SECRET" not in problem


def test_other_variables_are_not_ours(tmp_path: Path) -> None:
    """Variables that only begin like ours, or tell other things, are left alone."""
    names = ("CONFIG_DIR", "FD", "NAME", "FENCING_TOKEN", "TOOLS", "TEST_BACKENDS")
    load_text(tmp_path, environ={f"CLUSTER_LOCK_{name}": "x" for name in names})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, in which nothing is set."""
    for name in [name for name in os.environ if name.startswith(("CLUSTER_LOCK_", "TELEGRAM_", "ETCDCTL_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CLUSTER_LOCK_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


THEIR_CONFIG = {
    "bot": "bot:\n  admins: [1, 2]\ndatabase:\n  url: postgresql://localhost/x\n",
    "telegram": "telegram:\n  token: 123456:AAAAAAAA\n  admin_ids: [1]\nlog_level: INFO\n",
    "prefix": "prefix: '!'\nowner: me\n",
    "list": "- a\n- b\n",
    "tag": "database: !env DATABASE_URL\n",
    "template": "{% if x %}\nserver: {{ name }}\n",
    "latin-1": "greeting: caf\udce9\n",
}


@pytest.mark.parametrize("text", THEIR_CONFIG.values(), ids=THEIR_CONFIG)
def test_a_projects_own_config_is_left_alone(text: str, folder: Path) -> None:
    """A config.yaml that nobody named and that is not recognisably ours keeps nobody from starting."""
    (folder / "config.yaml").write_text(text, errors="surrogateescape")
    assert load(environ=os.environ).backend == "file"
    with pytest.raises(ConfigError):
        load("config.yaml")


OUR_CONFIG = {
    "misspelt": "bakend: etcd\n",
    "misspelt-with-others": "log_level: INFO\nBackend: etcd\n",
    "nested": "cluster-lock:\n  backend: etcd\n",
    "a-section": "etcd:\n  endpoint: x\n",
    "broken": "backend: etcd\nlock: {ttl: 1\n",
    "latin-1": "# caf\udce9\nbackend: etcd\n",
    "telegram": "telegram:\n  poll_timout: 5s\n",
}


@pytest.mark.parametrize("text", OUR_CONFIG.values(), ids=OUR_CONFIG)
def test_a_config_of_ours_is_never_left_out(text: str, folder: Path) -> None:
    """A file that was meant for us and is wrong is an error: to lead by the defaults beside others would be two
    leaders."""
    (folder / "config.yaml").write_text(text, errors="surrogateescape")
    with pytest.raises(ConfigError, match=r"^config\.yaml:\d"):
        load()


@pytest.mark.parametrize(("key", "doubt"), [("admin_ids", True), ("poll_timout", True), ("token", False)])
def test_where_it_may_be_another_projects_the_way_out_is_named(key: str, doubt: bool, folder: Path) -> None:
    """An error in a file that nobody named says how to have another one, unless the file is ours beyond doubt."""
    also = "" if doubt else "backend: file\n"
    (folder / "config.yaml").write_text(f"{also}telegram:\n  {key}: [1]\n")
    with pytest.raises(ConfigError) as refused:
        load()
    assert ("--config or CLUSTER_LOCK_CONFIG" in str(refused.value)) is doubt
    assert load(environ={**os.environ, "CLUSTER_LOCK_CONFIG": "/dev/null"}).backend == "file"


THEIR_DOTENV = {
    "note": "BOT_TOKEN=1:2\nthis is a note\n",
    "pem": 'PRIVATE_KEY="-----BEGIN KEY-----\nabc=\n-----END KEY-----"\n',
    "single": "KEY='a\nb'  # c\n",
    "dash": "my-key=1\n",
    "latin-1": "COMMENT=caf\udce9\n",
    "slip": "A='b\n",
    "json": """JSON={"a": "it's"}\n""",
    "slip-before-ours": 'A="b\n\n',
}


@pytest.mark.parametrize("text", THEIR_DOTENV.values(), ids=THEIR_DOTENV)
def test_what_else_is_in_dotenv_is_left_alone(text: str, folder: Path) -> None:
    """What the project has in its .env for itself, however it is written, stops nothing, and ours is read beside it."""
    (folder / ".env").write_text(f"{text}CLUSTER_LOCK_PREFIX=found/\n", errors="surrogateescape")
    assert load().prefix == "found/"


def test_a_quote_that_does_not_end_takes_nothing_of_ours(folder: Path) -> None:
    """A value over several lines that would take one of our variables with it is a value that does not end."""
    (folder / ".env").write_text('A="b\nCLUSTER_LOCK_PREFIX=found/\nB="\n')
    assert load().prefix == "found/"


def test_a_database_in_the_address_of_redis(tmp_path: Path) -> None:
    """It is told where that goes."""
    (said,) = problems_of(tmp_path, "backend: redis\nredis: {url: 'redis://db:6379/3'}\n")
    assert "the number of the database is redis.db" in said
