"""Secrets as a driver is given them."""

from __future__ import annotations

from typing import Protocol


class Secret(Protocol):
    """A password that does not show itself, such as pydantic's SecretStr."""

    def get_secret_value(self) -> str: ...


def revealed(given: str | Secret | None) -> str | None:
    """The password itself; None if none was given."""
    return given if given is None or isinstance(given, str) else given.get_secret_value()
