"""The setting `health`."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.settings import load_text, problems_of

from cluster_lock.health.opening import page_after
from cluster_lock.host.listen_address import listen_address


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", "127.0.0.1:9876"),
        ("health:", "127.0.0.1:9876"),
        ("health: off", "off"),
        ("health: OFF", "off"),
        ("health: 9999", "127.0.0.1:9999"),
        ("health: 0.0.0.0:80", "0.0.0.0:80"),
        ("health: '[::1]:80'", "[::1]:80"),
        ("health: ${PORT:-7}", "127.0.0.1:7"),
    ],
)
def test_what_may_be_written(tmp_path: Path, text: str, value: str) -> None:
    """An address, a port alone, or off, which YAML takes for a truth value; what comes out is an address again."""
    found = load_text(tmp_path, text).health
    assert found == value
    address = listen_address(found)
    assert (address.text if address else "off") == value


def test_from_the_environment(tmp_path: Path) -> None:
    """CLUSTER_LOCK_HEALTH is stronger than the file."""
    environ = {"CLUSTER_LOCK_HEALTH": "off"}
    assert load_text(tmp_path, "health: 9999", environ=environ).health == "off"


def test_what_is_wrong_is_said_with_its_line(tmp_path: Path) -> None:
    """What is no address is refused with file, line and what it should be."""
    (problem,) = problems_of(tmp_path, "backend: file\nhealth: example.org")
    assert problem == "config.yaml:2: health: must be HOST:PORT such as 127.0.0.1:9876, or off, but is 'example.org'"


@pytest.mark.parametrize(
    ("setting", "before", "after"),
    [
        ("127.0.0.1:9876", "http://127.0.0.1:9878", "http://127.0.0.1:9878"),
        ("127.0.0.1:9000", "http://127.0.0.1:9000", "http://127.0.0.1:9000"),
        ("127.0.0.1:9001", "http://127.0.0.1:9000", None),
        ("127.0.0.1:0", "http://127.0.0.1:9000", None),
        ("off", "http://127.0.0.1:9000", None),
        ("127.0.0.1:9876", None, None),
    ],
)
def test_the_page_of_a_successor(setting: str, before: str | None, after: str | None) -> None:
    """A successor says where it will serve its page where that is certain, and else nothing."""
    assert page_after(setting, before) == after
