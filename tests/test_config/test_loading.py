"""What is loaded from where, and who wins."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from support.settings import load_text, problems_of

from cluster_lock.config import load
from cluster_lock.errors import ConfigError
from cluster_lock.values import Timing


def test_without_anything_there_are_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file, no variable: the file backend, with the timing of the library."""
    monkeypatch.chdir(tmp_path)
    settings = load(environ={"CLUSTER_LOCK_STATE_DIR": "/srv/state"})
    assert settings.backend == "file"
    assert settings.timing == Timing()
    assert settings.instance == socket.gethostname()
    assert settings.file.directory == settings.state_directory == Path("/srv/state")
    assert settings.origin_of("lock.ttl") == "default"


def test_each_layer_wins_over_the_one_below(tmp_path: Path) -> None:
    """Command line over environment over .env over file over default, key by key, and each says where it is from."""
    settings = load_text(
        tmp_path,
        "lock:\n  ttl: 20s\n  margin: 4s\n  drain: 9s\n  settle: 1s\n",
        dotenv="CLUSTER_LOCK_LOCK__TTL=21s\nCLUSTER_LOCK_LOCK__MARGIN=5s\nCLUSTER_LOCK_LOCK__DRAIN=10s\n",
        environ={"CLUSTER_LOCK_LOCK__TTL": "22s", "CLUSTER_LOCK_LOCK__MARGIN": "6s"},
        overrides={"lock.ttl": "23s"},
    )
    timing = settings.timing
    assert (timing.ttl, timing.margin, timing.drain, timing.settle, timing.invite) == (23, 6, 10, 1, 0.5)
    assert [settings.origin_of(f"lock.{key}") for key in ("ttl", "margin", "drain", "settle", "invite")] == [
        "command line",
        "CLUSTER_LOCK_LOCK__MARGIN",
        ".env:3: CLUSTER_LOCK_LOCK__DRAIN",
        "config.yaml:5",
        "default",
    ]


def test_what_is_empty_counts_as_not_set(tmp_path: Path) -> None:
    """An empty value in a file, a variable or a default of `${}` leaves what is below it."""
    settings = load_text(
        tmp_path,
        "backend:\nprefix: ''\nlock: ~\ntelegram:\n  token:\n  api: ${NOWHERE:-}\ninstance: ${EMPTY}\n",
        environ={"CLUSTER_LOCK_LOCK__TTL": "", "EMPTY": "", "TELEGRAM_BOT_TOKEN": "", "POD_NAME": "bot-0"},
        dotenv="CLUSTER_LOCK_LOCK__TTL=20s\n",
        overrides={"prefix": "x/"},
    )
    assert settings.telegram.token is None
    assert settings.telegram.api == "https://api.telegram.org"
    assert (settings.backend, settings.prefix, settings.instance, settings.lock.ttl) == ("file", "x/", "bot-0", 20)


def test_the_file_is_found_by_variable_and_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--config names the file, else CLUSTER_LOCK_CONFIG, else it is ./config.yaml; one that was named must be there."""
    monkeypatch.chdir(tmp_path)
    for name in ("config", "one", "two"):
        Path(f"{name}.yaml").write_text(f"prefix: {name}/\n")
    variable = {"CLUSTER_LOCK_CONFIG": "one.yaml"}
    assert load(environ={}).prefix == "config/"
    assert load(environ=variable).prefix == "one/"
    assert load(Path("two.yaml"), environ=variable).prefix == "two/"
    Path(".env").write_text("CLUSTER_LOCK_CONFIG=two.yaml\n")
    assert load(environ={}).prefix == "two/"
    assert load(environ=variable).prefix == "one/"
    with pytest.raises(ConfigError, match=r"missing\.yaml: cannot be read: No such file"):
        load(Path("missing.yaml"), environ={})
    with pytest.raises(ConfigError, match=r"missing\.env: cannot be read: No such file"):
        load(environ={}, dotenv=Path("missing.env"))


def test_the_bot_token_has_its_usual_variable(tmp_path: Path) -> None:
    """TELEGRAM_BOT_TOKEN wins over the file; our own variable, being meant for us, wins over it."""
    text = "telegram:\n  token: 1:file\n"
    usual = {"TELEGRAM_BOT_TOKEN": "2:usual"}
    own = {"CLUSTER_LOCK_TELEGRAM__TOKEN": "3:own"}
    for environ, token, origin in (
        ({}, "1:file", "config.yaml:2"),
        (usual, "2:usual", "TELEGRAM_BOT_TOKEN"),
        ({**own, **usual}, "3:own", "CLUSTER_LOCK_TELEGRAM__TOKEN"),
    ):
        settings = load_text(tmp_path, text, environ=environ)
        assert settings.bot_token().get_secret_value() == token
        assert settings.origin_of("telegram.token") == origin


def test_references_are_filled_in(tmp_path: Path) -> None:
    """`${VAR}` and `${VAR:-default}` work inside of every value, after parsing; `$${` and `$VAR` are left alone."""
    settings = load_text(
        tmp_path,
        "prefix: ${NAME}-${OTHER:-b}/\n"
        "instance: '${COLON}'\n"
        'telegram: {on_conflict: "${EMPTY:-exit}"}\n'
        "backend: consul\n"
        "consul:\n"
        "  token: a$NAME-$${NAME}\n"
        "  url: ['${URL}', 'http://b:8500']\n",
        environ={"NAME": "a", "EMPTY": "", "URL": "http://a:8500", "COLON": "x.y"},
        dotenv="OTHER=c\n",
    )
    assert settings.prefix == "a-c/"
    assert settings.instance == "x.y"
    assert settings.telegram.on_conflict == "exit"
    assert settings.consul.token is not None
    assert settings.consul.token.get_secret_value() == "a$NAME-${NAME}"
    assert settings.consul.url == ("http://a:8500", "http://b:8500")


def test_a_reference_cannot_bring_in_structure(tmp_path: Path) -> None:
    """What a variable holds is one value, whatever YAML it looks like."""
    said = problems_of(tmp_path, "prefix: ${X}\n", environ={"X": "a/\nbackend: etcd"})
    assert said[0].startswith("config.yaml:1: prefix: must be letters")


def test_variables_are_taken_as_they_are(tmp_path: Path) -> None:
    """A password in the environment may contain `${`."""
    environ = {"CLUSTER_LOCK_ETCD__PASSWORD": "a${b}", "CLUSTER_LOCK_ETCD__USER": "u", "CLUSTER_LOCK_BACKEND": "etcd"}
    settings = load_text(tmp_path, environ=environ)
    assert settings.etcd.password is not None
    assert settings.etcd.password.get_secret_value() == "a${b}"


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("NAME=plain", "plain"),
        ("export NAME = spaced  # and a comment", "spaced"),
        ("NAME='single # ${X}' # c", "single # ${X}"),
        ('NAME="dou\\"ble\\n#"', 'dou"ble\n#'),
        ("NAME=with#hash", "with#hash"),
        ("NAME=a=b", "a=b"),
        ("NAME=x\r", "x"),
    ],
)
def test_dotenv_lines(line: str, value: str, tmp_path: Path) -> None:
    """.env is read as shells and Compose write it."""
    settings = load_text(
        tmp_path, "backend: consul\nconsul: {token: '${NAME}'}\n", dotenv=f"# comment\n\n{line}\nOTHER=1\n"
    )
    assert settings.consul.token is not None
    assert settings.consul.token.get_secret_value() == value


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path: Path) -> None:
    """Files that Windows editors saved with a mark in front are read like others."""
    settings = load_text(tmp_path, "\ufeffprefix: ${NAME}\n", dotenv="\ufeffNAME=bom\n")
    assert settings.prefix == "bom/"


def test_the_tools_own_variables_are_defaults(tmp_path: Path) -> None:
    """What consul and etcdctl read from the environment is used, below everything that was said to us."""
    consul = {
        "CONSUL_HTTP_ADDR": "10.0.0.1:8500",
        "CONSUL_HTTP_TOKEN": "t",
        "CONSUL_CACERT": "/ca",
        "CONSUL_CLIENT_CERT": "/cert",
        "CONSUL_CLIENT_KEY": "/key",
    }
    settings = load_text(tmp_path, "backend: consul\n", environ=consul)
    assert settings.consul.url == ("10.0.0.1:8500",)
    assert settings.consul.token is not None
    assert settings.consul.token.get_secret_value() == "t"
    assert (settings.consul.ca, settings.consul.cert, settings.consul.key) == (
        Path("/ca"),
        Path("/cert"),
        Path("/key"),
    )
    assert settings.origin_of("consul.url") == "default, by CONSUL_HTTP_ADDR"
    assert load_text(tmp_path, "backend: consul\nconsul: {url: http://b}", environ=consul).consul.url == ("http://b",)

    etcd = {
        "ETCDCTL_ENDPOINTS": "a:2379,https://b:2379",
        "ETCDCTL_CACERT": "/ca",
        "ETCDCTL_CERT": "/cert",
        "ETCDCTL_KEY": "/key",
        "ETCDCTL_USER": "root:pass:word",
    }
    settings = load_text(tmp_path, "backend: etcd\n", environ=etcd)
    assert settings.etcd.endpoints == ("a:2379", "https://b:2379")
    assert settings.etcd.user == "root"
    assert settings.etcd.password is not None
    assert settings.etcd.password.get_secret_value() == "pass:word"
    settings = load_text(tmp_path, "backend: etcd\n", environ={**etcd, "ETCDCTL_USER": "u", "ETCDCTL_PASSWORD": "p"})
    assert settings.etcd.password is not None
    assert settings.etcd.password.get_secret_value() == "p"


@pytest.mark.parametrize(
    ("ssl", "address", "found"),
    [
        ("true", "10.0.0.1:8501", ("https://10.0.0.1:8501",)),
        ("1", "a:8501, http://b:8500", ("https://a:8501", "https://b:8500")),
        ("false", "10.0.0.1:8500", ("10.0.0.1:8500",)),
        ("", "10.0.0.1:8500", ("10.0.0.1:8500",)),
    ],
)
@pytest.mark.parametrize("text", ["backend: consul\n", "backend: consul\nconsul: {url: '${CONSUL_HTTP_ADDR:-x}'}\n"])
def test_consul_over_tls_as_its_tools_read_it(
    tmp_path: Path, text: str, ssl: str, address: str, found: tuple[str, ...]
) -> None:
    """CONSUL_HTTP_SSL makes an address https, whether the file refers to the address or not."""
    environ = {"CONSUL_HTTP_ADDR": address, "CONSUL_HTTP_SSL": ssl}
    assert load_text(tmp_path, text, environ=environ).consul.url == found


def test_variables_of_an_unused_backend_are_nobodys_business(tmp_path: Path) -> None:
    """A CONSUL_HTTP_ADDR that we could not use is no error where etcd is used, also if the file refers to it."""
    text = "backend: etcd\nconsul:\n  url: ${CONSUL_HTTP_ADDR:-http://127.0.0.1:8500}\n  lock_delay: 5s\n"
    settings = load_text(tmp_path, text, environ={"CONSUL_HTTP_ADDR": "unix:///run/consul.sock"})
    assert settings.consul.url == ("http://127.0.0.1:8500",)
    assert settings.consul.lock_delay == 5
    said = problems_of(tmp_path, "backend: consul\n", environ={"CONSUL_HTTP_ADDR": "unix:///run/consul.sock"})
    form = "an address such as http://127.0.0.1:8500 or https://host:port"
    assert said == [f"CONSUL_HTTP_ADDR: consul.url: must be {form}, but is 'unix:///run/consul.sock'"]


def test_secrets_in_files(tmp_path: Path) -> None:
    """`*_file` is read, without its newline, and the stronger layer wins if the secret itself is given elsewhere."""
    secret = tmp_path / "token"
    secret.write_text("5:fromfile\n")
    text = f"telegram:\n  token_file: {secret}\n"
    settings = load_text(tmp_path, text)
    assert settings.bot_token().get_secret_value() == "5:fromfile"
    assert settings.origin_of("telegram.token") == f"config.yaml:2 ({secret})"
    settings = load_text(tmp_path, text, environ={"TELEGRAM_BOT_TOKEN": "6:usual"})
    assert settings.bot_token().get_secret_value() == "6:usual"
    by_variable = {"CLUSTER_LOCK_TELEGRAM__TOKEN_FILE": str(secret)}
    settings = load_text(tmp_path, "telegram: {token: '7:file'}\n", environ=by_variable)
    assert settings.bot_token().get_secret_value() == "5:fromfile"


def test_a_secret_file_of_an_unused_backend_is_left_alone(tmp_path: Path) -> None:
    """Where Consul is used, the password file of etcd is not looked at, and its user may be missing or be etcdctl's."""
    for user in ("user: u, ", ""):
        text = f"backend: consul\netcd: {{{user}password_file: /no/such/file}}\n"
        assert load_text(tmp_path, text, environ={"ETCDCTL_USER": "u"}).etcd.password is None


def test_a_missing_bot_token_is_said_where_it_is_needed(tmp_path: Path) -> None:
    """Settings without a token load (a lock needs none); asking for it tells how to give it."""
    settings = load_text(tmp_path)
    with pytest.raises(ConfigError, match=r"telegram\.token: is missing: set TELEGRAM_BOT_TOKEN"):
        settings.bot_token()


def test_values_that_yaml_1_1_would_mistake(tmp_path: Path) -> None:
    """A text that YAML 1.1 takes for a boolean, a number or base 60 stays the text that it is."""
    for name in ("no", "1e3", "12.30", "0x1F", "2026-01-01", "007", "on"):
        assert load_text(tmp_path, f"instance: {name}\n").instance == name
    assert load_text(tmp_path, "telegram: {token: 123456:0011}\n").bot_token().get_secret_value() == "123456:0011"
    assert load_text(tmp_path, "telegram: {test_environment: yes}\n").telegram.test_environment is True


def test_lists_may_be_written_with_commas(tmp_path: Path) -> None:
    """A list in YAML and one text with commas are the same, so that variables can give lists."""
    one = load_text(tmp_path, "consul: {url: [http://a, http://b], checks: [x]}\n").consul
    environ = {"CLUSTER_LOCK_CONSUL__URL": "http://a, http://b", "CLUSTER_LOCK_CONSUL__CHECKS": "x"}
    two = load_text(tmp_path, environ=environ).consul
    assert (one.url, one.checks) == (two.url, two.checks) == (("http://a", "http://b"), ("x",))


@pytest.mark.parametrize(
    ("text", "seconds"), [("500ms", 0.5), ("15s", 15.0), ("2m", 120.0), ("1h", 3600.0), ("1.5s", 1.5), ("20 s", 20.0)]
)
def test_durations(text: str, seconds: float, tmp_path: Path) -> None:
    """A duration is a number with a unit, and is shown so that it could be written again."""
    settings = load_text(tmp_path, f"telegram: {{handler_timeout: {text}}}\n")
    assert settings.telegram_times.handler_timeout == seconds
    shown = settings.model_dump(mode="json")["telegram"]["handler_timeout"]
    assert load_text(tmp_path, f"telegram: {{handler_timeout: {shown}}}\n").telegram_times.handler_timeout == seconds


@pytest.mark.parametrize("text", ["off", "'off'", ""])
def test_a_time_limit_that_is_off(text: str, tmp_path: Path) -> None:
    """`off`, which YAML takes for false, is no limit, as nothing at all; and it is shown as off."""
    settings = load_text(tmp_path, f"telegram:\n  handler_timeout: {text}\n")
    assert settings.telegram_times.handler_timeout is None
    assert settings.model_dump(mode="json")["telegram"]["handler_timeout"] == "off"


def test_a_prefix_ends_with_a_slash(tmp_path: Path) -> None:
    """`locks` and `locks/` are one prefix: two instances that differ in it would both lead."""
    assert load_text(tmp_path, "prefix: locks\n").prefix == load_text(tmp_path, "prefix: locks/\n").prefix == "locks/"


def test_the_fingerprint_tells_who_would_not_meet(tmp_path: Path) -> None:
    """It differs with backend, prefix and datacenter, and not with addresses, secrets or times."""

    def of(text: str) -> str:
        return load_text(tmp_path, text).fingerprint

    same = {
        of("backend: consul"),
        of("backend: consul\nconsul: {url: http://other, token: secret}\nlock: {ttl: 30s}\ninstance: x"),
    }
    assert len(same) == 1
    others = ["backend: etcd", "backend: consul\nprefix: x/", "backend: consul\nconsul: {datacenter: dc2}"]
    assert len({*same, *map(of, others)}) == 4


def test_settings_are_frozen(tmp_path: Path) -> None:
    """Nobody changes settings behind another's back."""
    settings = load_text(tmp_path)
    with pytest.raises(ValueError, match="frozen"):
        settings.backend = "etcd"
    with pytest.raises(ValueError, match="frozen"):
        settings.lock.ttl = 1
