"""No input ends in a traceback."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from cluster_lock.config import example, load
from cluster_lock.errors import ConfigError

pytestmark = pytest.mark.slow

EXAMPLE = example().encode()
PIECES = [
    *(bytes([number]) for number in range(256)),
    *(b"${", b"${A}", b"${A:-", b"}", b"&a ", b"*a", b"!!", b"!x ", b"? ", b": ", b"- ", b"<<: *a", b"---\n", b"...\n"),
    *(b"|\n", b">-\n", b"\t", b"\n  ", b"\n\n", b"'", b'"', b"\\u", b"\\U0011ffff", b"\\x00", b"%YAML 9.9\n", b"#"),
    *(
        "é".encode(),
        "\u2028\ufeff".encode(),
        b"\xed\xa0\x80",
        b"1e999",
        b"0x",
        b"1:30",
        b"[]",
        b"{}",
        b"[[",
        b"~",
        b"yes",
    ),
    *(b"backend", b"lock:", b"ttl: ", b"15s", b"consul:", b"url: ", b"token_file: /", b"telegram: ", b"~root/x"),
]
NAMES = [
    *("LOCK__TTL", "BACKEND", "CONSUL__URL", "FENCING_FLOOR", "FILE__DIRECTORY", "ETCD__CA", "ETCD__PASSWORD_FILE"),
    *("X__Y", "__", "", "CONFIG", "STATE_DIR"),
]
VARIABLES = [
    *(f"CLUSTER_LOCK_{name}" for name in NAMES),
    "TELEGRAM_BOT_TOKEN",
    "ETCDCTL_USER",
    "HOME",
    "XDG_STATE_HOME",
]
PATHS = ["lock.ttl", "instance", "", ".", "lock", "lock.", "a.b.c", "telegram.token", "backend.x"]


def mutant(chance: random.Random) -> bytes:
    content = bytearray(chance.choice((EXAMPLE, EXAMPLE, b"", b"lock:\n  ttl: 15s\n")))
    for _ in range(chance.randint(1, 12)):
        start = chance.randint(0, len(content))
        piece = b"".join(chance.choice(PIECES) for _ in range(chance.randint(0, 4)))
        content[start : start + chance.choice((0, 0, 1, 5, 40))] = piece
    return bytes(content)


@pytest.mark.parametrize("seed", range(8))
def test_any_file_loads_or_is_refused(seed: int, tmp_path: Path) -> None:
    """Whatever bytes stand in config.yaml and .env, there are settings or a ConfigError with printable sentences."""
    chance = random.Random(seed)
    file, dotenv = tmp_path / "config.yaml", tmp_path / ".env"
    refused: list[ConfigError] = []
    for _ in range(60):
        file.write_bytes(mutant(chance))
        dotenv.write_bytes(mutant(chance) if chance.random() < 0.3 else b"A=b\n")
        try:
            load(file, environ={"A": "x"}, dotenv=dotenv)
        except ConfigError as error:
            refused.append(error)
    assert refused
    for one in refused:
        assert one.problems
        assert all(problem.strip() for problem in one.problems)
        assert str(one).encode()


@pytest.mark.parametrize("seed", range(4))
def test_any_variable_loads_or_is_refused(seed: int, tmp_path: Path) -> None:
    """Whatever stands in variables and on the command line, there are settings or a ConfigError."""
    chance = random.Random(seed)
    file = tmp_path / "config.yaml"
    file.write_text("prefix: a\n")
    refused: list[ConfigError] = []
    for _ in range(150):
        values = [
            b"".join(chance.choice(PIECES) for _ in range(chance.randint(0, 5))).decode(errors="surrogateescape")
            for _ in range(4)
        ]
        environ = {chance.choice(VARIABLES): value for value in values[:2]}
        overrides = {chance.choice(PATHS): value for value in values[2:]} if chance.random() < 0.5 else {}
        try:
            load(file, environ=environ, overrides=overrides)
        except ConfigError as error:
            refused.append(error)
    assert refused
    assert all(str(one).encode() for one in refused)
