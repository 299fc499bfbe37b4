"""Whose is the config.yaml that lies in the working directory? Half of all projects have one of their own."""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Collection, Set
from pathlib import Path

from .known_keys import NAMES
from .reading import LARGEST_FILE, read_yaml
from .source_tree import Layer, Node, Place, Problems

log = logging.getLogger("cluster_lock.config")

_OURS_ALONE = ("backend", "fencing_floor", "lock", "etcd", "consul", "postgres", "cluster_lock")
"""Keys that say more than others: a `telegram`, a `file` or a `prefix` is in many a file. The last one is none, but who
writes it means us."""
_NAMED_BY = "name another one by --config or CLUSTER_LOCK_CONFIG (CLUSTER_LOCK_CONFIG=/dev/null: none)"


def read_found(path: Path, problems: Problems) -> dict[str, Node] | None:
    """What stands in a file that nobody named; None if it is somebody else's. What is wrong in ours is added to
    `problems`, with how to have another one."""
    own = Problems()
    content = read_yaml(path, own)
    if _is_ours(content) if content else not own or _has_ours(path):
        problems.take(own)
        return content
    level = logging.WARNING if content.keys() & {*NAMES} or own else logging.INFO
    log.log(
        level, "%s is taken for the project's own, and not read: if it is cluster-lock's, name it by --config", path
    )
    return None


def say_doubt(path: Path, keys: Set[str], problems: Problems) -> None:
    """Something is wrong in a file that nobody named, and it may be none of ours after all."""
    if not (keys <= {*NAMES} and keys & {*_OURS_ALONE}):
        place = Place(Layer.DEFAULT, str(path))
        problems.add(place, "", f"was found in the working directory; if it is not cluster-lock's, {_NAMED_BY}")


def _is_ours(keys: Collection[str]) -> bool:
    """It has a key that others seldom have, or all of its keys are ours: as they are, or misspelt. One of ours that is
    not read would lead by the defaults, beside those that read theirs."""
    return any(_means(key, _OURS_ALONE) for key in keys) or all(_means(key, NAMES) for key in keys)


def _means(key: str, names: Collection[str]) -> bool:
    return bool(difflib.get_close_matches(key.lower()[:100], names, n=1, cutoff=0.8))


def _has_ours(path: Path) -> bool:
    """The same of a file that cannot be read as YAML, or not at all."""
    try:
        with path.open("rb") as file:
            text = file.read(LARGEST_FILE).decode("latin-1")
    except OSError:
        return True  # which is said
    return any(_means(found, _OURS_ALONE) for found in re.findall(r"^([A-Za-z_-]+)[ \t]*:", text, re.MULTILINE))
