"""From files, variables and the command line to one checked `Settings`, or to the list of all that is wrong."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from cluster_lock.drivers import BUILTIN, available
from cluster_lock.errors import ConfigError
from cluster_lock.state_directory import state_directory
from cluster_lock.values import Timing

from .kinds import Duration
from .model import TIMING_KEYS, Section, Settings, unpaired
from .places import NOWHERE, Branch, Items, Layer, Leaf, Node, Problems, leaves, merged, texts
from .reading import read_dotenv, read_yaml
from .secret_files import note_secrets, read_secret_files
from .shape import fitting, shape
from .variables import (
    Variables,
    environment,
    from_overrides,
    from_variables,
    interpolated,
    sections_named,
    tool_defaults,
)

DEFAULT_FILE = Path("config.yaml")
DEFAULT_DOTENV = Path(".env")


def load(
    path: Path | None = None,
    *,
    overrides: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
    dotenv: Path | None = None,
) -> Settings:
    """The effective settings: `overrides` (by dotted path, from the command line) win over the environment, that over
    `.env`, that over the file, that over the defaults. What is empty counts as not set.

    `path`: the file; else `CLUSTER_LOCK_CONFIG`; else ./config.yaml if there is one. `dotenv`: else ./.env if there is
    one. Raises ConfigError with every problem at once, each with file and line, or the variable, and the key.
    """
    problems = Problems()
    overrides = overrides or {}
    variables = _variables(os.environ if environ is None else environ, dotenv, problems)
    file = _file(path, variables)
    read = interpolated(read_yaml(file, problems), variables, problems) if file else None
    written = read if isinstance(read, Branch) else Branch({})

    foreign = _foreign_sections(written, variables, overrides)
    layers = [
        _without_empty(fitting(written, foreign, problems)),
        from_variables(variables, foreign, problems),
        from_overrides(overrides, foreign, problems),
    ]
    for layer in layers:
        note_secrets(layer, problems)
    chosen = merged(layers).children.get("backend")
    backend = chosen.text.strip() if isinstance(chosen, Leaf) else "file"
    tree = merged([tool_defaults(variables, backend), *layers])
    _drop_unused(tree, backend)
    read_secret_files(tree, ("telegram", backend), problems)
    note_secrets(tree, problems)
    return _validated(_printable(tree, problems), foreign, variables, problems)


def _variables(environ: Mapping[str, str], dotenv: Path | None, problems: Problems) -> Variables:
    if dotenv is None and os.path.isfile(DEFAULT_DOTENV):
        dotenv = DEFAULT_DOTENV
    below = read_dotenv(dotenv, problems) if dotenv else {}
    # An empty variable hides nothing: Compose hands on `NAME=` for what nobody set.
    return {**below, **{name: found for name, found in environment(environ).items() if found[0] or name not in below}}


def _file(path: Path | None, variables: Variables) -> Path | None:
    if path is not None:
        return path
    named, _ = variables.get("CLUSTER_LOCK_CONFIG", ("", NOWHERE))
    if named:
        return Path(named)
    return DEFAULT_FILE if os.path.exists(DEFAULT_FILE) else None


def _foreign_sections(written: Branch, variables: Variables, overrides: Mapping[str, str]) -> tuple[str, ...]:
    """Sections that belong to installed drivers of others. Looking for those is slow, and seldom needed."""
    backend = written.children.get("backend")
    named = {backend.text if isinstance(backend, Leaf) else "", overrides.get("backend", "")}
    named |= {*written.children, *sections_named(variables), *(path.partition(".")[0] for path in overrides)}
    if named <= {"", *BUILTIN, *shape().keys}:
        return ()
    return tuple(name for name in available() if name not in BUILTIN)


def _without_empty(branch: Branch) -> Branch:
    children: dict[str, Node] = {}
    for key, node in branch.children.items():
        if isinstance(node, Branch):
            children[key] = _without_empty(node)
        elif not isinstance(node, Leaf) or node.text.strip():
            children[key] = node
    return Branch(children, branch.place)


def _drop_unused(tree: Branch, backend: str) -> None:
    """What variables put into the sections of other backends: CONSUL_HTTP_ADDR may be anything where etcd is used."""
    for name in set(BUILTIN) - {backend}:
        branch = tree.children.get(name)
        for key, node in list(branch.children.items()) if isinstance(branch, Branch) else ():
            if isinstance(node, Leaf) and node.filled and isinstance(branch, Branch):
                del branch.children[key]


_UNFIT = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def _printable(branch: Branch, problems: Problems, path: str = "") -> Branch:
    """`branch` without values that nobody could print, open or send, after saying so."""
    children: dict[str, Node] = {}
    for key, node in branch.children.items():
        below = f"{path}.{key}" if path else key
        if isinstance(node, Branch):
            children[key] = _printable(node, problems, below)
        elif any(_UNFIT.search(text) for text in texts(node)):
            problems.add(node.place, below, "holds a character that cannot be printed")
        else:
            children[key] = node
    return Branch(children, branch.place)


def _plain(node: Node) -> Any:
    if isinstance(node, Branch):
        return {key: _plain(child) for key, child in node.children.items()}
    if isinstance(node, Items):
        return [_plain(child) for child in node.children]
    return node.text.strip()


def _typed(node: Node) -> Any:
    """A foreign section: nobody here knows what its keys mean, so plain numbers and booleans are taken for such."""
    if isinstance(node, Branch):
        return {key: _typed(child) for key, child in node.children.items()}
    if isinstance(node, Items):
        return [_typed(child) for child in node.children]
    if node.plain and node.text in ("true", "false"):
        return node.text == "true"
    if node.plain and re.fullmatch(r"-?[0-9]{1,18}(\.[0-9]{1,18})?", node.text):
        return float(node.text) if "." in node.text else int(node.text)
    return node.text


def _validated(tree: Branch, foreign: tuple[str, ...], variables: Variables, problems: Problems) -> Settings:
    data = {name: _plain(node) for name, node in tree.children.items() if name not in foreign}
    home: Path | None = None
    try:
        home = state_directory({name: value for name, (value, _) in variables.items()})
        if "directory" not in data.setdefault("file", {}):
            data["file"]["directory"] = str(home)
    except ConfigError as error:
        problems.add(NOWHERE, "file.directory", str(error))
        data["file"] = {"directory": "."}
    settings: Settings | None = None
    found: list[ErrorDetails] = []
    try:
        settings = Settings.model_validate(data)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
    for details in found:
        # What keys have to do with one another is not told by the model, because it looks only once each is good.
        if shape().key(".".join(step for step in details["loc"] if isinstance(step, str))):
            _explain(details, tree, problems)
    if settings is None:
        _explain_pairs(tree, problems)
        _explain_timing(data, tree, problems)
    if problems or settings is None:
        raise problems.error()
    settings._origins = {path: str(node.place) for path, node in leaves(tree) if node.place.layer > Layer.DEFAULT}
    settings._origins |= {
        path: f"default, by {node.place}" for path, node in leaves(tree) if node.place.layer == Layer.DEFAULT
    }
    settings._foreign = {name: _typed(node) for name, node in tree.children.items() if name in foreign}
    settings._state_directory = home
    return settings


def _explain(details: ErrorDetails, tree: Branch, problems: Problems) -> None:
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
    if isinstance(node, Leaf) and key and not key.is_secret:
        shown = node.text if len(node.text) <= 60 else node.text[:57] + "..."
        text += f", but is {shown!r}"
    problems.add(node.place, path, text)


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
