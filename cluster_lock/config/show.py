"""Settings for people: the effective ones, the example file, the schema. Never a secret."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any

import yaml

from cluster_lock.drivers import BUILTIN
from cluster_lock.host.masking import SECRET_NAME

from .field_types import duration_text
from .model import Settings

MASK = "********"


def shown(settings: Settings) -> dict[str, Any]:
    """The effective settings as plain values, secrets masked: sections of other backends are left out."""
    content = settings.model_dump(mode="json")
    others = {*BUILTIN} - {settings.backend}
    content = {name: value for name, value in content.items() if name not in others}
    if (theirs := settings.foreign_section) is not None:
        content[settings.backend] = _masked(theirs.model_dump(mode="json"))
    elif settings.foreign(settings.backend):
        content[settings.backend] = _masked(dict(settings.foreign(settings.backend)))
    return content


def shown_text(settings: Settings) -> str:
    """The same as YAML, each value that is not a default with the place it came from."""
    lines = yaml.safe_dump(shown(settings), sort_keys=False, allow_unicode=True, width=10_000).splitlines()
    section = ""
    for number, line in enumerate(lines):
        match = re.match(r"( *)([a-z_]+):", line)
        if match is None:
            continue
        section = match[2] if not match[1] else section
        origin = settings.origin_of(f"{section}.{match[2]}" if match[1] else match[2])
        if origin != "default":
            lines[number] = f"{line}  # {origin}"
    return "\n".join(lines)


def shown_line(settings: Settings) -> str:
    """What somebody chose, each with the place it came from, on one line."""
    chosen = [
        f"{path} {', '.join(map(str, value)) if isinstance(value, list) else value} ({origin})"
        for path, value in _values(shown(settings))
        if not (origin := settings.origin_of(path)).startswith("default")
    ]
    return "; ".join(chosen) or "all defaults"


def origins(settings: Settings) -> dict[str, str]:
    """Where each value of `shown` came from, by its dotted path."""
    return {path: settings.origin_of(path) for path, _ in _values(shown(settings))}


def _values(content: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        if isinstance(value, dict) and value:
            yield from _values(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def _masked(value: Any, name: str = "") -> Any:
    if isinstance(value, dict):
        return {key: _masked(below, key) for key, below in value.items()}
    if isinstance(value, list | tuple):
        return [_masked(below, name) for below in value]
    return MASK if value not in (None, "") and SECRET_NAME.search(name) else value


def schema() -> str:
    """The JSON schema of config.yaml, for editors. It allows `${NAME}` everywhere, and sections of other drivers."""
    content = Settings.model_json_schema()
    for section in (content, *content["$defs"].values()):
        for name, key in section["properties"].items():
            section["properties"][name] = _loosened(key)
    content["additionalProperties"] = {"type": "object"}
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **content}, indent=2)


def _loosened(key: dict[str, Any]) -> dict[str, Any]:
    reference = key.get("$ref") or key.get("allOf", [{}])[0].get("$ref")  # pydantic before 2.10 wraps it
    if reference:
        return {"$ref": reference, "description": key["description"]}
    kinds = [{word: value for word, value in key.items() if word not in ("default", "description", "title")}]
    kinds = key.get("anyOf", kinds)
    wanted: dict[str, Any] = {"description": key["description"]}
    if "default" in key:
        wanted["default"] = duration_text(key["default"]) if isinstance(key["default"], float) else key["default"]
    more = [{"type": "string", "pattern": r"\$\{"}, {"type": "null"}]
    return {**wanted, "anyOf": [*kinds, *(kind for kind in more if kind not in kinds)]}


def example() -> str:
    """config.yaml with every key, its default and what it is for."""
    return (resources.files(__package__) / "example.yaml").read_text(encoding="utf-8")
