"""Checks what was written, and says what pydantic found in our words: with its place, and never with a secret."""

from __future__ import annotations

from collections.abc import Iterable, Set
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from cluster_lock.host.masking import shortened

from .known_keys import KEYS, SECTIONS, UNREPEATED
from .model import CONTRADICTION, Settings
from .source_tree import NOWHERE, Node, Problems, Written


def checked(written: Written, problems: Problems) -> Settings | None:
    """The settings that our own keys in `written` make. Everything that is wrong with them is added to `problems`.

    The model compares values with one another only once each is good by itself: those that are not are told and left
    out, and the rest is looked at again.
    """
    left = {path: node for path, node in written.items() if path in KEYS}
    while True:
        try:
            return Settings.model_validate(_nested(left))
        except ValidationError as error:
            found = error.errors(include_url=False, include_input=False)
        if found[0]["type"] == CONTRADICTION:  # it stands alone
            _explain_contradictions(found[0]["ctx"][CONTRADICTION], left, written.keys() - left.keys(), problems)
            return None
        wrong = {_explain_value(details, left, problems) for details in found}
        if not wrong & left.keys():
            return None
        left = {path: node for path, node in left.items() if path not in wrong}


def _nested(written: Written) -> dict[str, Any]:
    data: dict[str, Any] = {name: {} for name in SECTIONS}
    for path, node in written.items():
        section, _, key = path.rpartition(".")
        inside = data[section] if section else data
        inside[key] = _stripped(node)
    return data


def _stripped(node: Node) -> Any:
    if isinstance(node.value, str):
        return node.value.strip()
    return [_stripped(child) for child in node.value] if isinstance(node.value, list) else None


def _explain_value(details: ErrorDetails, written: Written, problems: Problems) -> str:
    """Add what is wrong with one value; returns its path."""
    path = ".".join(step for step in details["loc"] if isinstance(step, str))
    node = written.get(path)
    for step in details["loc"]:
        if isinstance(step, int) and node is not None and isinstance(node.value, list):
            node = node.value[step]
    text = wording(details)
    if node is not None and isinstance(node.value, str) and path not in UNREPEATED and not _may_hold_password(node):
        text += f", but is {shortened(node.value, 57)!r}"
    problems.add(NOWHERE if node is None else node.place, path, text)
    return path


def _explain_contradictions(
    found: Iterable[tuple[list[str], str]], written: Written, left_out: Set[str], problems: Problems
) -> None:
    """One with a value that was left out is passed over: nothing is known of it. A default is not blamed if another of
    the values was written."""
    for paths, text in found:
        if left_out.isdisjoint(paths):
            path = next((path for path in paths if path in written), paths[0])
            problems.add(written[path].place if path in written else NOWHERE, path, text)


def _may_hold_password(node: Node) -> bool:
    """An address with a user, or with what follows a question mark: however it is spelt, it is not repeated."""
    text = str(node.value)
    return "@" in text or ("://" in text and ("?" in text or "#" in text))


def wording(details: ErrorDetails) -> str:
    """What pydantic found, in our words and without the value."""
    context = details.get("ctx", {})
    match details["type"]:
        case "value_error":
            return str(context["error"])
        case "missing":
            return "is missing"
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
        case _:
            return details["msg"].removeprefix("Input should be").strip()
