"""From files, variables and the command line to one checked `Settings`, or to the list of all that is wrong."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from cluster_lock.drivers import BUILTIN, available
from cluster_lock.errors import ConfigError
from cluster_lock.host.masking import keep_secret
from cluster_lock.host.state_directory import RELATIVE, state_directory
from cluster_lock.host.trusted_path import check_found

from .explaining import explain
from .model import Settings
from .places import NOWHERE, Branch, Items, Layer, Leaf, Node, Problems, leaves, merged, texts
from .reading import read_dotenv, read_yaml
from .recognising import read_found, say_doubt
from .secret_files import note_secrets, read_secret_files
from .shape import fitting, shape
from .variables import (
    Variables,
    as_tools_read_them,
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
    path: Path | str | None = None,
    *,
    overrides: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
    dotenv: Path | str | None = None,
) -> Settings:
    """The effective settings: `overrides` (by dotted path, from the command line) win over the environment, that over
    `.env`, that over the file, that over the defaults. What is empty counts as not set.

    `path`: the file; else `CLUSTER_LOCK_CONFIG`; else ./config.yaml if there is one, and it is not recognisably
    somebody else's. `dotenv`: else ./.env if there is one. Raises ConfigError with every problem at once, each with
    file and line, or the variable, and the key; and PermissionRefused if one of these two that nobody named could have
    been put there by somebody else than root, us, or whose directory it is: it could send our secrets anywhere.
    """
    problems = Problems()
    overrides = overrides or {}
    variables = _variables(os.environ if environ is None else environ, dotenv, problems)
    file, content = _file(path, variables, problems)
    read = interpolated(content, variables, problems)
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
    _anchor_directory(tree, file, problems)
    note_secrets(tree, problems)
    keep_secret(*problems.secrets)
    try:
        return _validated(_printable(tree, problems), foreign, variables, problems)
    except ConfigError:
        if file is DEFAULT_FILE and problems.are_in(Layer.FILE):
            say_doubt(file, content.children.keys(), problems)
        raise problems.error() from None


def _variables(environ: Mapping[str, str], dotenv: Path | str | None, problems: Problems) -> Variables:
    if dotenv is None and os.path.isfile(DEFAULT_DOTENV):
        check_found(DEFAULT_DOTENV)
        dotenv = DEFAULT_DOTENV
    below = read_dotenv(Path(dotenv), problems) if dotenv else {}
    # An empty variable hides nothing: Compose hands on `NAME=` for what nobody set.
    above = {name: found for name, found in environment(environ).items() if found[0] or name not in below}
    return as_tools_read_them({**below, **above})


def _file(path: Path | str | None, variables: Variables, problems: Problems) -> tuple[Path | None, Branch]:
    """The file, and what is in it: none and nothing where nobody named one and none of ours was found."""
    named, _ = variables.get("CLUSTER_LOCK_CONFIG", ("", NOWHERE))
    if path is not None or named:
        file = Path(named if path is None else path)
        return file, read_yaml(file, problems)
    if os.path.exists(DEFAULT_FILE):
        check_found(DEFAULT_FILE)
        if (found := read_found(DEFAULT_FILE, problems)) is not None:
            return DEFAULT_FILE, found
    return None, Branch({})


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


def _anchor_directory(tree: Branch, file: Path | None, problems: Problems) -> None:
    """A relative `file.directory` is meant from the configuration file; elsewhere there is nothing that all instances
    share, so it is refused: from two working directories it would be two folders, with a leader in each."""
    section = tree.children.get("file")
    leaf = section.children.get("directory") if isinstance(section, Branch) else None
    if not isinstance(leaf, Leaf) or not isinstance(section, Branch) or "\0" in leaf.text:
        return
    directory = Path(os.path.expanduser(leaf.text.strip()))
    if directory.is_absolute() or leaf.place.layer == Layer.DEFAULT:  # the state directory, which `_home` looks at
        return
    if leaf.place.layer == Layer.FILE and file is not None:
        anchored = os.path.normpath(file.absolute().parent / directory)
        section.children["directory"] = Leaf(anchored, leaf.place, leaf.plain, leaf.filled)
    else:
        problems.add(leaf.place, "file.directory", f"must be an absolute path, but is {leaf.text[:200]!r}: {RELATIVE}")


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
    home = _home(data, variables, problems)
    settings: Settings | None = None
    found: list[ErrorDetails] = []
    try:
        settings = Settings.model_validate(data)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
    if settings is None:
        explain(found, data, tree, problems)
    if problems or settings is None:
        raise problems.error()
    origins = {path: node.place for path, node in leaves(tree)}
    settings._origins = {
        path: str(place) if place.layer > Layer.DEFAULT else f"default, by {place}" for path, place in origins.items()
    }
    settings._foreign = {name: _typed(node) for name, node in tree.children.items() if name in foreign}
    settings._state_directory = home
    return settings


def _home(data: dict[str, Any], variables: Variables, problems: Problems) -> Path | None:
    """The state directory, which is the file backend's default. None if there is none, and it is not needed here; one
    that is given and wrong is always told."""
    section: dict[str, Any] = data.setdefault("file", {})
    needed = "directory" not in section and data.get("backend", "file") == "file"
    try:
        home = state_directory({name: value for name, (value, _) in variables.items()})
    except ConfigError as error:
        given, place = variables.get("CLUSTER_LOCK_STATE_DIR", ("", NOWHERE))
        if given:
            problems.add(place, "", str(error))
        elif needed:
            problems.add(NOWHERE, "file.directory", str(error))
        section.setdefault("directory", ".")
        return None
    section.setdefault("directory", str(home))
    return home
