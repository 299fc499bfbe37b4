"""Secrets come out nowhere: not in problems, not in what is printed, not in a traceback's chain."""

from __future__ import annotations

import base64
import html
import json
import pickle
import traceback
from pathlib import Path
from urllib.parse import quote

import pytest
from support.settings import load_text, problems_of

from cluster_lock.config import Settings, load, shown, shown_text
from cluster_lock.errors import ConfigError
from cluster_lock.host.masking import keep_secret, masked, masked_arguments

SECRET = "hunter2hunter2"
TOKEN = "123456789:AAhunter2hunter2hunter2hunter2hunter2"

GOOD = f"""\
backend: consul
telegram: {{token: '{TOKEN}'}}
etcd: {{user: 'root:{SECRET}'}}
consul: {{token: {SECRET}}}
"""


def test_what_is_printed_shows_no_secret(tmp_path: Path) -> None:
    """repr, str, dumps and the printed settings are free of tokens and passwords, of foreign drivers' too."""
    settings = load_text(tmp_path, GOOD)
    assert settings.consul.token is not None
    assert settings.consul.token.get_secret_value() == SECRET
    texts = [
        repr(settings),
        str(settings),
        settings.model_dump_json(),
        str(settings.model_dump()),
        shown_text(settings),
    ]
    texts.append(json.dumps(shown(settings)))
    for text in texts:
        assert "hunter2" not in text
    assert "token: '**********'" in shown_text(settings)


@pytest.mark.parametrize(
    "text",
    [
        f"telegram: {{token: '{TOKEN} '}}\ntelegramm: 1",
        f"telegram: {{token: 'x{TOKEN}'}}",
        f"telegram: {{token: [{TOKEN}]}}",
        f"telegram: '{TOKEN}'",
        f"telegram:\n  {TOKEN}",
        f"'{TOKEN}': x",
        f"telegram: {{'{TOKEN}': x}}",
        f"instance: 'a {TOKEN}'",
        f"telegram: {{api: 'http://user:{SECRET}@host'}}",
        f"etcd: {{endpoints: 'http://user:{SECRET}@host'}}",
        f"consul: {{url: ['http://{SECRET}@host']}}",
        f"backend: etcd\netcd: {{password: {SECRET}, endpoints: '{SECRET} x'}}",
        f"etcd: {{user: 'root:{SECRET}', endpoints: 'x {SECRET}'}}",
        f"consul: {{token: '{SECRET}', token_file: /dev/null, datacenter: [x]}}",
        f"consul: {{token: {SECRET}: x}}",
        f"consul:\n  token: *{SECRET}\n",
        f"consul:\n  token: !{SECRET} x\n",
        f"consul:\n  token: '{SECRET}\n",
        f"consul:\n  token: {SECRET}\n  token: {SECRET}2\n",
        f"consul:\n  token: ${{{SECRET}\n",
        f"prefix: ${{X:-{SECRET}}} x\nconsul: {{token: {SECRET}}}",
    ],
)
def test_problems_quote_no_secret(text: str, tmp_path: Path) -> None:
    """Whatever is wrong near a secret, neither the problem nor the error's chain and traceback repeat it."""
    with pytest.raises(ConfigError) as refused:
        load_text(tmp_path, text)
    error: BaseException | None = refused.value
    while error is not None:
        assert "hunter2" not in str(error)
        assert "hunter2" not in repr(error)
        error = error.__cause__ or error.__context__
    lines = traceback.format_exception(refused.value)
    assert "hunter2" not in "".join(line for line in lines if "test_secrets" not in line)


def test_secrets_of_variables_are_not_quoted(tmp_path: Path) -> None:
    """A token that came by the environment, or was put into a wrong key, is not repeated."""
    said = problems_of(
        tmp_path,
        "instance: a ${TELEGRAM_BOT_TOKEN}\n",
        environ={
            "TELEGRAM_BOT_TOKEN": "42:hunter2",
            "CLUSTER_LOCK_CONSUL__TOKEN": SECRET,
            "CLUSTER_LOCK_PREFIX": f"a {SECRET}",
        },
        overrides={"telegram.token": "hunter2 hunter2"},
    )
    assert len(said) == 3
    assert "hunter2" not in "".join(said)


def test_a_secret_file_is_not_quoted(tmp_path: Path) -> None:
    """A file with more than the secret in it is refused without its content."""
    secret = tmp_path / "secret"
    secret.write_text(f"{SECRET}\n{SECRET}\n")
    said = problems_of(tmp_path, f"backend: consul\nconsul: {{token_file: {secret}}}\n")
    assert said == [f"config.yaml:2: consul.token_file: {secret} must hold one line, the secret"]


def test_pydantics_own_error_quotes_nothing() -> None:
    """Settings that somebody makes without `load` are refused without repeating the token."""
    with pytest.raises(ValueError, match="bot token") as refused:
        Settings.model_validate({"telegram": {"token": "x hunter2"}, "instance": "hunter2 x"})
    assert "hunter2" not in str(refused.value)


def test_settings_travel_between_processes(tmp_path: Path) -> None:
    """Settings can be pickled, with their secrets and origins, for a child process that is ours."""
    settings = load_text(tmp_path, GOOD)
    again = pickle.loads(pickle.dumps(settings))
    assert again == settings
    assert again.bot_token().get_secret_value() == TOKEN
    assert again.origin_of("consul.token") == "config.yaml:4"


def test_masking() -> None:
    """What looks like a token or like credentials is blotted out, and what cannot be printed is escaped."""
    assert masked(f"a {TOKEN} b http://u:p@h/ \ud800") == "a *** b http://***@h/ \\ud800"
    assert masked("x secret x", ["secret"]) == "x *** x"
    arguments = ["bot", "--token", "x", "--api-key=x", "TELEGRAM_TOKEN=x", "--token-file", "/f", "--token", "-v", TOKEN]
    assert masked_arguments(arguments) == [
        "bot", "--token", "***", "--api-key=***", "TELEGRAM_TOKEN=***", "--token-file", "/f", "--token", "-v", "***",
    ]  # fmt: skip


def test_load_without_arguments_quotes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process's own environment is treated like any other."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TELEGRAM_BOT_TOKEN", "hunter2")
    with pytest.raises(ConfigError) as refused:
        load()
    assert str(refused.value).startswith("TELEGRAM_BOT_TOKEN: is not a bot token")
    assert "hunter2" not in str(refused.value)


def test_a_registered_secret_is_known_in_every_form() -> None:
    """However an address, JSON, Python, HTML or basic authentication writes it, and also the half of a bot's token."""
    secret = 'pa:ss/wörd "\\quoted&'
    keep_secret(secret, TOKEN)
    forms = [
        secret,
        quote(secret),
        quote(secret, safe="").lower(),
        json.dumps(secret),
        json.dumps({"a": json.dumps(secret)}),
        repr(secret),
        repr(secret.encode()),
        html.escape(secret),
        *(base64.b64encode(f"{user}:{secret}".encode()).decode() for user in ("u", "us", "use")),
        TOKEN.partition(":")[2],
        TOKEN.replace(":", "%3A"),
    ]
    kept = [form for form in forms if masked(f"a {form} b").count("***") != 1 or "wörd" in masked(form)]
    assert kept == []
    assert [form for form in forms if "hunter2" in masked(form)] == []


def test_loaded_secrets_are_registered(tmp_path: Path) -> None:
    """What the settings hold is blotted out of anything from then on, no matter who shows it."""
    load_text(tmp_path, GOOD)
    assert masked(f"{SECRET} x") == "*** x"


def test_a_private_key_is_masked(tmp_path: Path) -> None:
    """A key that was given instead of its file's name is not repeated."""
    pem = "-----BEGIN EC PRIVATE KEY-----\nMHchunter2\n-----END EC PRIVATE KEY-----"
    assert "hunter2" not in masked(f"cannot use {pem}: no such file")


def test_a_secret_in_the_place_of_its_file_is_not_quoted(tmp_path: Path) -> None:
    """A name that no file has, and that may be the secret, is answered with where a secret may be given."""
    (said,) = problems_of(tmp_path, f"backend: consul\nconsul: {{token_file: {SECRET}}}\n")
    assert "names no file" in said
    assert "set CLUSTER_LOCK_CONSUL__TOKEN" in said
    assert "hunter2" not in said


@pytest.mark.parametrize(
    "arguments",
    [
        ["--set=consul.token=hunter2"],
        ["--set", "consul.token=hunter2"],
        ["--set", "etcd.user=root:hunter2"],
        ["--set=etcd.user=root:hunter2"],
        ["curl", "-u", "me:hunter2"],
        ["psql", "postgres://u:p/hunter2@h/db"],
        ["env", "AUTH=hunter2"],
        ["curl", "-H", "X-Consul-Token: hunter2"],
    ],
)
def test_arguments_are_masked(arguments: list[str]) -> None:
    """A command line is shown without what looks like a secret in it."""
    assert "hunter2" not in " ".join(masked_arguments(arguments))


DSNS = {
    "host=db password=se-cret": "must not hold a password",
    "password = 'se-cret x'": "must not hold a password",
    "sslpassword=se-cret": "must not hold a password",
    "PassWord=se-cret": "must not hold a password",
    "pasword=se-cret": "none of libpq's",
    "host=db se-cret=x": "must be a connection string",
    "se-cret": "must be a connection string",
    "postgresql://bot:se-cret@db/locks": "must not hold a password",
    "postgresql://bot:se-cret/x@db:5432/locks": "must not hold a password",
    "postgresql://bot:1/se-cret@db/locks": "must not hold a password",
    "postgresql://bot@db/locks?password=se-cret": "must not hold a password",
    "postgresql://bot@db/locks?pwd=se-cret": "none of libpq's",
    "host=\xa0 password=se-cret": "must not hold a password",
    "dbname=\n dbname='%x password = se-cret%'": "must be a connection string",
    "host= password=se-cret": "must not hold a password",
    "host=postgresql://bot:se-cret@db": "must not hold a password",
    "host=bot:se-cret@db": "must not hold a password",
    "postgresql://db/locks?host=bot%3Ase-cret%40db": "must not hold a password",
    "postgresql://db/locks?user=postgres%3A%2F%2Fbot%3Ase-cret": "must not hold a password",
}


@pytest.mark.parametrize("dsn", DSNS)
def test_a_dsn_that_may_hold_a_password_is_refused(tmp_path: Path, dsn: str) -> None:
    """However it is spelt, at the settings, with its line, and not a word of it is repeated."""
    (said,) = problems_of(tmp_path, f"backend: postgres\npostgres:\n  dsn: {json.dumps(dsn)}\n")
    assert DSNS[dsn] in said
    assert ":3: postgres.dsn: " in said
    assert "se-cret" not in said


@pytest.mark.parametrize(
    "dsn",
    [
        "host=db1,db2 dbname=locks",
        "service=locks",
        "host = '/var/run/pg sql' port=5433 passfile=/run/pass",
        "host=@abstract",
        "postgresql://",
        "postgresql://bot@db1:5432,[::1]:5433/locks?target_session_attrs=read-write&sslmode=verify-full",
        "postgres:///locks?host=/var/run/postgresql",
        "postgresql://[fe80::1%25eth0]/db?ssl=true&user=bot@srv",
    ],
)
def test_a_dsn_without_one_is_taken(tmp_path: Path, dsn: str) -> None:
    """As libpq takes it."""
    assert load_text(tmp_path, f"backend: postgres\npostgres:\n  dsn: {json.dumps(dsn)}\n").postgres.dsn == dsn
