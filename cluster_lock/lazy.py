"""Names of a package that are loaded when they are first used, so that importing the package costs nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazily(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """The `__getattr__` of `package`. `homes`: by name, the module below it that has the name, one beside it with a
    dot before it, or MODULE:NAME where it is called otherwise there."""

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, _, real = homes[name].partition(":")
        return getattr(import_module(f".{module}", package), real or name)

    return load
