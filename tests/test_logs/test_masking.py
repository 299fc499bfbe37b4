"""What looks like a secret is blotted out, and a stranger's text costs no more than its length."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from cluster_lock.host.logs import _SECONDS
from cluster_lock.host.masking import keep_secret, masked, masked_arguments, shortened


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgres://app:p@ss-w0rd-9@db/x", "postgres://***@db/x"),
        ("redis://:pa@ss@word-long@redis:6379/0", "redis://***@redis:6379/0"),
        ("amqp://u:a/b@c-secret@mq/", "amqp://***@mq/"),
        ("amqp://u@corp:secret@mq/", "amqp://***@mq/"),
        ("http://10.0.0.1:8500/v1/kv and me@example.org", "http://10.0.0.1:8500/v1/kv and me@example.org"),
    ],
)
def test_an_address_shows_no_password(text: str, shown: str) -> None:
    """User and password end at the last "@" before a space."""
    assert masked(text) == shown


@pytest.mark.parametrize("unit", ["://:", "://a:", "://@", "://a@", "11111:", "1", "1.", "-----BEGIN ", "A", "a:@"])
@pytest.mark.parametrize("work", [masked, lambda text: _SECONDS.sub("# s", text)])
def test_work_grows_with_the_length_alone(unit: str, work: Callable[[str], str]) -> None:
    """Eight times as much text costs no more than some eight times the work: with its square it would be 64."""

    def cost(length: int) -> float:
        text, best = unit * (length // len(unit)), float("inf")
        for _ in range(3):
            begun = time.process_time()
            work(text)
            best = min(best, time.process_time() - begun)
        return best

    assert cost(64_000) <= 24 * cost(8_000) + 0.02


@pytest.mark.parametrize(("unit", "length"), [("=user=", 1_000_000), ("authfile=", 3_000_000)])
def test_a_long_argument(unit: str, length: int) -> None:
    """An argument of megabytes that looks again and again as if a password came is masked at once."""
    argument = unit * (length // len(unit))
    assert masked_arguments([argument]) == [argument]
    [shown] = masked_arguments([f"{argument} --set=etcd.user=me:hunter2-and:more"])
    assert "hunter2" not in shown


def test_a_long_text_is_cut_and_no_secret_in_two() -> None:
    """Of a text of any length only the beginning is shown, without a part of a secret that stands anywhere in it."""
    secret = "long-" + "".join(f"{number:04d}" for number in range(1500))
    keep_secret(secret)
    for before in (0, 250, 290, 299, 300, 301, 4000, 5000):
        for text in (secret, "x://" + secret):
            said = shortened("x" * before + text + "y" * 100_000, 300)
            assert len(said) <= 303
            assert said.startswith("x" * min(before, 300))
            assert secret[:8] not in said
            assert "0010" not in said
