"""What pydantic found, in our words: with the place where somebody wrote it, and never with a secret."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from cluster_lock.host.masking import shortened
from cluster_lock.values import Timing

from .kinds import Duration
from .model import TIMING_KEYS, Section, Settings, unpaired
from .places import NOWHERE, Branch, Items, Leaf, Node, Problems, leaves
from .shape import shape


def explain(found: Sequence[ErrorDetails], data: Mapping[str, Any], tree: Branch, problems: Problems) -> None:
    """Add all of it to `problems`: what is wrong with a value, and what values have to do with one another.

    The latter is found here once more: the model looks for it only once each value is good by itself.
    """
    for details in found:
        if shape().key(".".join(step for step in details["loc"] if isinstance(step, str))):
            _explain_value(details, tree, problems)
    _explain_pairs(tree, problems)
    _explain_timing(data, tree, problems)
    if not problems:  # a rule of the model that is not told above
        for details in found:
            problems.add(NOWHERE, ".".join(map(str, details["loc"])), _wording(details))


def _explain_value(details: ErrorDetails, tree: Branch, problems: Problems) -> None:
    node: Node = tree
    names: list[str] = []
    for step in details["loc"]:
        if isinstance(step, str):
            names.append(step)
        if isinstance(node, Branch):
            node = node.children.get(str(step), node)
        elif isinstance(node, Items) and isinstance(step, int):
            node = node.children[step]
    path = ".".join(names)
    text = _wording(details)
    key = shape().key(path)
    if isinstance(node, Leaf) and key and not key.is_secret and not _may_hold_password(node.text):
        text += f", but is {shortened(node.text, 57)!r}"
    problems.add(node.place, path, text)


def _may_hold_password(text: str) -> bool:
    """An address with a user, or with what follows a question mark: however it is spelt, it is not repeated."""
    return "@" in text or ("://" in text and ("?" in text or "#" in text))


def _wording(details: ErrorDetails) -> str:
    context = details.get("ctx", {})
    match details["type"]:
        case "value_error":
            return str(context["error"])
        case "int_parsing" | "int_type" | "int_from_float" | "int_parsing_size":
            return "must be a whole number"
        case "bool_parsing" | "bool_type":
            return "must be true or false"
        case "literal_error":
            return f"must be {context['expected']}"
        case "greater_than_equal":
            return f"must be at least {context['ge']:g}"
        case "less_than_equal":
            return f"must be at most {context['le']:g}"
        case "less_than":
            return f"must be less than {context['lt']:g}"
        case _:
            return details["msg"].removeprefix("Input should be").strip()


def _explain_pairs(tree: Branch, problems: Problems) -> None:
    for name, info in Settings.model_fields.items():
        branch = tree.children.get(name)
        if isinstance(branch, Branch) and isinstance(info.annotation, type) and issubclass(info.annotation, Section):
            given = {key.removesuffix("_file") for key in branch.children}
            user = branch.children.get("user")
            if isinstance(user, Leaf) and ":" in user.text:
                given.add("password")
            for key, problem in unpaired(info.annotation.pairs, given).items():
                problems.add(
                    branch.children[key].place if key in branch.children else branch.place, f"{name}.{key}", problem
                )


def _explain_timing(data: Mapping[str, Any], tree: Branch, problems: Problems) -> None:
    """What does not fit together among the durations that are durations, though others may be none."""
    good: dict[str, float] = {}
    bad: set[str] = set()
    for name, (section, key) in TIMING_KEYS.items():
        written = data.get(section, {}).get(key)
        if written is not None:
            try:
                good[name] = TypeAdapter(Duration).validate_python(written)
            except ValidationError:
                bad.add(name)
    try:
        Timing(**good)
    except ValueError as error:
        for sentence in str(error).split("; "):
            names = [name for name in TIMING_KEYS if re.search(rf"\b{name}\b", sentence)]
            if not bad.intersection(names):
                _blame(sentence, names, tree, problems)


def _blame(sentence: str, names: list[str], tree: Branch, problems: Problems) -> None:
    """A sentence of `Timing` names the culprit first. If that one is a default, one that was written is to blame."""
    names.sort(key=sentence.index)
    paths = [".".join(TIMING_KEYS[name]) for name in names]
    written = {path: node.place for path, node in leaves(tree)}
    path = next((path for path in paths if path in written), paths[0])
    problems.add(written.get(path, NOWHERE), path, sentence)
