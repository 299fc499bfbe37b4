"""From files, variables and the command line to one checked `Settings`, or to the list of all that is wrong."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cluster_lock.drivers import BUILTIN, available
from cluster_lock.errors import ConfigError
from cluster_lock.host.state_directory import RELATIVE, state_directory
from cluster_lock.host.trusted_path import check_found

from .checking import checked
from .foreign import checked_section
from .known_keys import KEYS, NAMES, fitting, unknown
from .model import Settings
from .reading import read_dotenv, read_yaml
from .recognising import read_found, say_doubt
from .secret_settings import note_secrets, read_secret_files
from .source_tree import NOWHERE, Layer, Node, Place, Problems, Written
from .variables import Variables, filled

DEFAULT_FILE = Path("config.yaml")
DEFAULT_DOTENV = Path(".env")
DIRECTORY = "file.directory"


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
    good = {name: node for name, raw in content.items() if (node := filled(raw, variables, problems, name)) is not None}
    foreign = _foreign_sections([*good, *variables.sections(), *(name.partition(".")[0] for name in overrides)])
    written = variables.for_tools()
    for layer in (
        fitting(good, foreign, problems),
        variables.for_us(foreign, problems),
        _from_overrides(overrides, foreign, problems),
    ):
        note_secrets(layer)
        written |= layer
    backend = str(written["backend"].value).strip() if "backend" in written else "file"
    # The variables of tools that are not used say nothing: CONSUL_HTTP_ADDR may be anything where etcd is used.
    unused = {*BUILTIN} - {backend}
    written = {path: node for path, node in written.items() if not (node.filled and path.partition(".")[0] in unused)}
    read_secret_files(written, ("telegram", backend), problems)
    _anchor_directory(written, file, problems)
    home = _home(variables, backend == "file" and DIRECTORY not in written, problems)
    written.setdefault(DIRECTORY, Node(str(home or Path()), NOWHERE))
    note_secrets(written)
    fit = _printable(written, problems)
    section = checked_section(backend, _foreign(backend, fit), fit, problems) if _is_foreign(backend) else None
    settings = checked(fit, problems)
    if problems or settings is None:
        if file is DEFAULT_FILE and problems.are_in(Layer.FILE):
            say_doubt(file, content.keys(), problems)
        raise problems.error()
    places = ((path, found) for top, node in written.items() for path, found in (*node.texts(top), (top, node)))
    settings._origins = {path: str(found.place) for path, found in places}
    settings._foreign = {name: _foreign(name, written) for name in foreign}
    settings._foreign_section = section
    settings._state_directory = home
    return settings


def _variables(environ: Mapping[str, str], dotenv: Path | str | None, problems: Problems) -> Variables:
    if dotenv is None and os.path.isfile(DEFAULT_DOTENV):
        check_found(DEFAULT_DOTENV)
        dotenv = DEFAULT_DOTENV
    return Variables(environ, read_dotenv(Path(dotenv), problems) if dotenv else {})


def _file(path: Path | str | None, variables: Variables, problems: Problems) -> tuple[Path | None, dict[str, Node]]:
    """The file, and what is in it: none and nothing where nobody named one and none of ours was found."""
    if path is not None or (path := variables.text("CLUSTER_LOCK_CONFIG")):
        return Path(path), read_yaml(Path(path), problems)
    if os.path.exists(DEFAULT_FILE):
        check_found(DEFAULT_FILE)
        if (found := read_found(DEFAULT_FILE, problems)) is not None:
            return DEFAULT_FILE, found
    return None, {}


def _foreign_sections(names: Collection[str]) -> tuple[str, ...]:
    """Sections that belong to installed drivers of others. Looking for those is slow, and seldom needed."""
    return () if {*names} <= {*NAMES} else tuple(name for name in available() if name not in BUILTIN)


def _is_foreign(backend: str) -> bool:
    return backend not in BUILTIN and backend in available()


def _from_overrides(overrides: Mapping[str, str], foreign: Collection[str], problems: Problems) -> Written:
    """What the command line says, by dotted path."""
    place = Place(Layer.COMMAND_LINE, "command line")
    found: Written = {}
    for path, value in overrides.items():
        section, dot, _ = path.partition(".")
        if path in KEYS or (dot and section in foreign):
            found[path] = Node(value, place)
        else:
            problems.add(place, path, unknown(path, KEYS))
    return found


def _anchor_directory(written: Written, file: Path | None, problems: Problems) -> None:
    """A relative `file.directory` is meant from the configuration file; elsewhere there is nothing that all instances
    share, so it is refused: from two working directories it would be two folders, with a leader in each."""
    node = written.get(DIRECTORY)
    if node is None or node.place.layer == Layer.DEFAULT:  # the state directory, which `_home` looks at
        return
    directory = os.path.expanduser(str(node.value).strip())
    if "\0" in directory or Path(directory).is_absolute():
        return
    if node.place.layer == Layer.FILE and file is not None:
        written[DIRECTORY] = replace(node, value=os.path.normpath(file.absolute().parent / directory))
    else:
        text = f"must be an absolute path, but is {str(node.value)[:200]!r}: {RELATIVE}"
        problems.add(node.place, DIRECTORY, text)


def _home(variables: Variables, needed: bool, problems: Problems) -> Path | None:
    """The state directory. None if there is none, which is told if it is needed here; one that is given and wrong is
    always told."""
    try:
        return state_directory({name: variables.text(name) for name in variables})
    except ConfigError as error:
        if variables.text("CLUSTER_LOCK_STATE_DIR"):
            problems.add(variables["CLUSTER_LOCK_STATE_DIR"].place, "", str(error))
        elif needed:
            problems.add(NOWHERE, DIRECTORY, str(error))
        return None


_UNFIT = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def _printable(written: Written, problems: Problems) -> Written:
    """`written` without values that nobody could print, open or send, after saying so."""
    unfit = set()
    for path, node in written.items():
        for below, text in node.texts(path):
            if _UNFIT.search(str(text.value)):
                problems.add(text.place, below, "holds a character that cannot be printed")
                unfit.add(path)
    return {path: node for path, node in written.items() if path not in unfit}


def _foreign(section: str, written: Written) -> dict[str, Any]:
    return {path.partition(".")[2]: _typed(node) for path, node in written.items() if path.startswith(f"{section}.")}


def _typed(node: Node) -> Any:
    """Of a foreign section: nobody here knows what its keys mean, so plain numbers and booleans are taken for such."""
    text = node.value
    if isinstance(text, dict):
        return {key: _typed(child) for key, child in text.items() if child.value and not str(child.value).isspace()}
    if isinstance(text, list):
        return [_typed(child) for child in text]
    if node.plain and text in ("true", "false"):
        return text == "true"
    if node.plain and re.fullmatch(r"-?[0-9]{1,18}(\.[0-9]{1,18})?", text):
        return float(text) if "." in text else int(text)
    return text
