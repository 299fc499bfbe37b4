"""Where a setting was written, the tree of what was written there, and the list of what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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
    says_path: bool = False
    """The text tells which setting it is about, as the name of a variable does."""

    def __str__(self) -> str:
        return self.text

    def begin(self, path: str) -> str:
        """How a problem with the setting `path` begins."""
        return ": ".join(part for part in (self.text, "" if self.says_path else path) if part)


NOWHERE = Place(Layer.DEFAULT, "")


@dataclass(frozen=True, slots=True)
class Leaf:
    """A value as it was written. `plain`: YAML without quotes. `filled`: with the value of a variable in it."""

    text: str
    place: Place
    plain: bool = False
    filled: bool = False


@dataclass(frozen=True, slots=True)
class Items:
    children: list[Node]
    place: Place


@dataclass(frozen=True, slots=True)
class Branch:
    children: dict[str, Node]
    place: Place = NOWHERE


Node = Leaf | Items | Branch


def merged(layers: Iterable[Branch]) -> Branch:
    """All layers as one tree, lowest first."""
    children: dict[str, Node] = {}
    place = NOWHERE
    for layer in layers:
        place = layer.place
        for key, node in layer.children.items():
            below = children.get(key)
            both = isinstance(below, Branch) and isinstance(node, Branch)
            children[key] = merged([below, node]) if both else node  # type: ignore[list-item]
    return Branch(children, place)


def leaves(node: Node, path: str = "") -> Iterator[tuple[str, Leaf | Items]]:
    """Every value with its dotted path; a list counts as one."""
    if isinstance(node, Branch):
        for key, child in node.children.items():
            yield from leaves(child, f"{path}.{key}" if path else key)
    else:
        yield path, node


def below_lists(node: Node) -> Iterator[tuple[str, Leaf | Items]]:
    """Every value that stands in a section in a list, with its name."""
    for child in node.children if isinstance(node, Items) else ():
        for path, value in leaves(child):
            if path:
                yield path, value
            yield from below_lists(value)


def texts(node: Node) -> Iterator[str]:
    """Every text under `node`."""
    for child in node.children if isinstance(node, Items) else ():
        yield from texts(child)
    for child in node.children.values() if isinstance(node, Branch) else ():
        yield from texts(child)
    if isinstance(node, Leaf):
        yield node.text


@dataclass(slots=True)
class Problems:
    """Collects everything that is wrong, so that a person can mend it all at once. Secrets are blotted out of it."""

    secrets: set[str] = field(default_factory=set)
    _found: list[tuple[Place, str]] = field(default_factory=list)

    def add(self, place: Place, path: str, text: str) -> None:
        self._found.append((place, f"{place.begin(path)}: {text}"))

    def take(self, others: Problems) -> None:
        """Add what others found."""
        self.secrets |= others.secrets
        self._found += others._found

    def are_in(self, layer: Layer) -> bool:
        """Is something wrong that was written there?"""
        return any(place.layer is layer for place, _ in self._found)

    def __bool__(self) -> bool:
        return bool(self._found)

    def error(self) -> ConfigError:
        """All of them: the file's first, from top to bottom."""
        order = {Layer.DEFAULT: 9}
        found = sorted(self._found, key=lambda one: (order.get(one[0].layer, one[0].layer), one[0].line))
        return ConfigError(list(dict.fromkeys(masked(text, self.secrets) for _, text in found)))
