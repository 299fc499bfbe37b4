"""What was written, each value with its place, and the list of what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum

from cluster_lock.errors import ConfigError
from cluster_lock.host.masking import masked


class Layer(IntEnum):
    """Who wins over whom: the higher number."""

    DEFAULT = 0
    FILE = 1
    DOTENV = 2
    ENVIRONMENT = 3
    COMMAND_LINE = 4


@dataclass(frozen=True, slots=True)
class Place:
    """`text` is what a person looks for: "config.yaml:12", "CLUSTER_LOCK_LOCK__TTL", ".env:3", "command line"."""

    layer: Layer
    text: str
    line: int = 0

    def __str__(self) -> str:
        if self.layer:
            return self.text
        return f"default, by {self.text}" if self.text else "default"

    def begin(self, path: str) -> str:
        """How a problem with the setting `path` begins. The name of a variable of ours says which one it is about."""
        is_variable = self.layer in (Layer.DOTENV, Layer.ENVIRONMENT)
        return ": ".join(part for part in (self.text, "" if is_variable else path) if part)


NOWHERE = Place(Layer.DEFAULT, "")


@dataclass(frozen=True, slots=True)
class Node:
    """A text as it was written, a list, or a section."""

    value: str | list[Node] | dict[str, Node]
    place: Place
    plain: bool = False
    """YAML without quotes."""
    filled: bool = False
    """With the value of a variable in it that is not ours."""

    def texts(self, path: str = "") -> Iterator[tuple[str, Node]]:
        """Every text in it, with its dotted path: the places in a list have no name."""
        if isinstance(self.value, dict):
            for key, child in self.value.items():
                yield from child.texts(f"{path}.{key}")
        elif isinstance(self.value, list):
            for child in self.value:
                yield from child.texts(path)
        else:
            yield path, self


Written = dict[str, Node]
"""What one layer says, or all of them: by the path of the setting, such as "lock.ttl"."""


@dataclass(slots=True)
class Problems:
    """Collects everything that is wrong, so that a person can mend it all at once. Secrets are blotted out of it."""

    _found: list[tuple[Place, str]] = field(default_factory=list)

    def add(self, place: Place, path: str, text: str) -> None:
        self._found.append((place, f"{place.begin(path)}: {text}"))

    def take(self, others: Problems) -> None:
        """Add what others found."""
        self._found += others._found

    def are_in(self, layer: Layer) -> bool:
        """Is something wrong that was written there?"""
        return any(place.layer is layer for place, _ in self._found)

    def __bool__(self) -> bool:
        return bool(self._found)

    def error(self) -> ConfigError:
        """All of them: the file's first, from top to bottom."""
        found = sorted(self._found, key=lambda one: (one[0].layer or len(Layer), one[0].line))
        return ConfigError(list(dict.fromkeys(masked(text) for _, text in found)))
