"""What keys there may be, and where: told by the model, compared with what somebody wrote."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cache

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from .model import Settings
from .places import Branch, Items, Leaf, Node, Problems


@dataclass(frozen=True, slots=True)
class Key:
    is_list: bool = False
    is_secret: bool = False


@dataclass(frozen=True, slots=True)
class Shape:
    keys: Mapping[str, Key | Mapping[str, Key]] = field(default_factory=dict)

    def key(self, path: str) -> Key | None:
        """The key `path` ("lock.ttl"), or None if it is none."""
        section, _, name = path.partition(".")
        found = self.keys.get(section)
        if isinstance(found, Mapping):
            return found.get(name)
        return found if not name else None

    def paths(self) -> list[str]:
        return [
            path
            for name, value in self.keys.items()
            for path in ([f"{name}.{key}" for key in value] if isinstance(value, Mapping) else [name])
        ]


@cache
def shape() -> Shape:
    """The shape of `Settings`."""
    keys: dict[str, Key | Mapping[str, Key]] = {}
    for name, info in Settings.model_fields.items():
        section = info.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            keys[name] = {key: _key(below) for key, below in section.model_fields.items()}
        else:
            keys[name] = _key(info)
    return Shape(keys)


def _key(info: FieldInfo) -> Key:
    kinds = (info.annotation, *typing.get_args(info.annotation))
    is_secret = any(SecretStr in (kind, *typing.get_args(kind)) for kind in kinds)  # Token is an Annotated one
    return Key(is_list=typing.get_origin(info.annotation) is tuple, is_secret=is_secret)


def fitting(tree: Branch, foreign: Collection[str], problems: Problems) -> Branch:
    """`tree` without what does not belong there, after saying so. `foreign`: sections of drivers that are not ours."""
    children: dict[str, Node] = {}
    for name, node in tree.children.items():
        known = shape().keys.get(name)
        if known is None and name not in foreign:
            problems.add(node.place, name, unknown(name, [*shape().keys, *foreign]))
        elif known is None or isinstance(known, Mapping):
            if isinstance(node, Branch):
                children[name] = node if known is None else _section(name, node, known, problems)
            elif not (isinstance(node, Leaf) and not node.text):
                keys = f" with {', '.join(known)}" if known else ""
                problems.add(node.place, name, f"must be a section{keys}")
        elif _fits(name, node, known, problems):
            children[name] = node
    return Branch(children, tree.place)


def _section(name: str, branch: Branch, keys: Mapping[str, Key], problems: Problems) -> Branch:
    children: dict[str, Node] = {}
    for key, node in branch.children.items():
        path = f"{name}.{key}"
        if key not in keys:
            elsewhere = [other for other in shape().paths() if other.rpartition(".")[2] == key]
            problems.add(node.place, path, unknown(key, keys, elsewhere))
        elif _fits(path, node, keys[key], problems):
            children[key] = node
    return Branch(children, branch.place)


def _fits(path: str, node: Node, key: Key, problems: Problems) -> bool:
    if isinstance(node, Items) and key.is_list:
        wrong = [child for child in node.children if not isinstance(child, Leaf)]
        for child in wrong:
            problems.add(child.place, path, "must be a list of single values")
        return not wrong
    if not isinstance(node, Leaf):
        problems.add(node.place, path, "must be a list" if key.is_list else "must be a single value")
        return False
    return True


def unknown(key: str, known: Collection[str], elsewhere: Collection[str] = ()) -> str:
    """What is wrong with a key that nobody knows."""
    close = [*elsewhere, *difflib.get_close_matches(key.lower()[:100], known, n=1)]
    return f"unknown key, did you mean {close[0]}?" if close else f"unknown key, allowed are {', '.join(known)}"
