"""What keys there may be, and where: told by the model, compared with what somebody wrote."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from .model import Settings
from .source_tree import Node, Problems, Written


def _fields(model: type[BaseModel], above: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, info in model.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from _fields(info.annotation, f"{name}.")
        else:
            yield f"{above}{name}", info


def mentions(annotation: Any, wanted: type) -> bool:
    return annotation is wanted or any(mentions(part, wanted) for part in typing.get_args(annotation))


KEYS = dict(_fields(Settings))
"""All keys by their paths."""
LISTS = {path for path, info in KEYS.items() if typing.get_origin(info.annotation) is tuple}
SECRETS = {path for path, info in KEYS.items() if mentions(info.annotation, SecretStr)}
UNREPEATED = SECRETS | {path for path in KEYS if path.endswith(".dsn")}
"""Whose values no message repeats: where one is wrong, a secret may stand in it."""
NAMES = tuple(Settings.model_fields)
"""What may stand at the top: keys without a section, and sections."""
SECTIONS: Mapping[str, tuple[str, ...]] = {
    name: tuple(path.partition(".")[2] for path in KEYS if path.startswith(f"{name}."))
    for name in NAMES
    if name not in KEYS
}
"""The sections with their keys."""


def fitting(content: Mapping[str, Node], foreign: Collection[str], problems: Problems) -> Written:
    """The values of a file, without what does not belong there, after saying so, and without what is empty. `foreign`:
    sections of drivers that are not ours."""
    found: Written = {}
    for name, node in content.items():
        if name in KEYS:
            found[name] = node
        elif name not in SECTIONS and name not in foreign:
            problems.add(node.place, name, unknown(name, [*NAMES, *foreign]))
        elif isinstance(node.value, dict):
            found |= {f"{name}.{key}": child for key, child in node.value.items()}
        elif node.value != "":
            keys = f" with {', '.join(SECTIONS[name])}" if name in SECTIONS else ""
            problems.add(node.place, name, f"must be a section{keys}")
    return {
        path: node
        for path, node in found.items()
        if (path.partition(".")[0] in foreign or _fits(path, node, problems))
        and not (isinstance(node.value, str) and not node.value.strip())
    }


def _fits(path: str, node: Node, problems: Problems) -> bool:
    if path not in KEYS:
        section, _, name = path.partition(".")
        elsewhere = [other for other in KEYS if other.rpartition(".")[2] == name]
        problems.add(node.place, path, unknown(name, SECTIONS[section], elsewhere))
        return False
    if path in LISTS and isinstance(node.value, list):
        wrong = [child.place for child in node.value if not isinstance(child.value, str)]
        text = "must be a list of single values"
    else:
        wrong = [] if isinstance(node.value, str) else [node.place]
        text = "must be a list" if path in LISTS else "must be a single value"
    for place in wrong:
        problems.add(place, path, text)
    return not wrong


def unknown(key: str, known: Collection[str], elsewhere: Collection[str] = ()) -> str:
    """What is wrong with a key that nobody knows."""
    close = [*elsewhere, *difflib.get_close_matches(key.lower()[:100], known, n=1)]
    return f"unknown key, did you mean {close[0]}?" if close else f"unknown key, allowed are {', '.join(known)}"
