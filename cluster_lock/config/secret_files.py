"""Secrets: where they are among the settings, and those that stand in files of their own."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from cluster_lock.host.masking import SECRET_NAME

from .places import Branch, Leaf, Place, Problems, below_lists, leaves, texts
from .reading import read_text
from .shape import shape
from .variables import PREFIX, TOKEN


def note_secrets(tree: Branch, problems: Problems) -> None:
    """From here on no problem quotes them."""
    written = list(leaves(tree))
    inside = [(f"{path}.{name}", value) for path, node in written for name, value in below_lists(node)]
    for path, node in (*written, *inside):
        if path == "etcd.user":  # etcdctl's variable may carry the password behind a colon
            secrets = {text.partition(":")[2] for text in texts(node)}
        elif is_secret(path):
            secrets = {secret for text in texts(node) for secret in (text, text.strip())}
        else:
            continue
        problems.secrets |= secrets - {""}


def is_secret(path: str) -> bool:
    """Is this setting a secret, or of a foreign section and called like one?"""
    key = shape().key(path)
    return key.is_secret if key else bool(SECRET_NAME.search(path.rpartition(".")[2])) and not path.endswith("_file")


def instead_of(path: str) -> str:
    """Where a secret may be given, for who gave it elsewhere."""
    variable = TOKEN if path == "telegram.token" else f"{PREFIX}{path.upper().replace('.', '__')}"
    file = f"{path}_file"
    return f"set {variable}, or {file if shape().key(file) else path} in the configuration"


def read_secret_files(tree: Branch, sections: Iterable[str], problems: Problems) -> None:
    """Put what the `*_file` keys name into the keys they stand for, where no stronger layer gives the secret itself."""
    for section in sections:
        branch = tree.children.get(section)
        if not isinstance(branch, Branch):
            continue
        for name in [name for name in ("token", "password") if shape().key(f"{section}.{name}_file")]:
            file, direct = branch.children.get(f"{name}_file"), branch.children.get(name)
            if not isinstance(file, Leaf) or (isinstance(direct, Leaf) and direct.place.layer > file.place.layer):
                continue
            path = f"{section}.{name}_file"
            if isinstance(direct, Leaf) and direct.place.layer == file.place.layer:
                problems.add(file.place, path, f"give {name} or {name}_file, not both")
            elif secret := _secret(file, path, problems):
                place = Place(file.place.layer, f"{file.place} ({file.text})", file.place.line, file.place.says_path)
                branch.children[name] = Leaf(secret, place)


def _secret(file: Leaf, path: str, problems: Problems) -> str | None:
    if os.sep not in file.text and not os.path.exists(file.text.strip()):
        # People put the secret itself here.
        name = path.removesuffix("_file")
        problems.add(file.place, path, f"names no file that is there; if it is the secret itself: {instead_of(name)}")
        problems.secrets.add(file.text.strip())
        return None
    reading = Problems()
    text = read_text(Path(os.path.expanduser(file.text.strip())), file.place.layer, reading)
    if text is None:
        problems.add(file.place, path, str(reading.error()))
        return None
    if not text.strip() or "\n" in text.strip():
        problems.add(file.place, path, f"{file.text} must hold one line, the secret")
        return None
    return text.strip()
