"""Secrets: where they are among the settings, and those that stand in files of their own."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from pydantic import BaseModel, SecretStr

from cluster_lock.host.masking import SECRET_NAME, keep_secret

from .known_keys import KEYS, SECRETS
from .reading import read_text
from .source_tree import Node, Problems, Written
from .variables import PREFIX, TOKEN


def note_secrets(written: Written) -> None:
    """From here on nobody is shown them, in problems or elsewhere."""
    for path, text in (found for top, node in written.items() for found in node.texts(top)):
        value = str(text.value)
        if path == "etcd.user":  # etcdctl's variable may carry the password behind a colon
            keep_secret(value.partition(":")[2])
        elif is_secret(path):
            keep_secret(value, value.strip())


def is_secret(path: str) -> bool:
    """Is this setting a secret, or of a foreign section and called like one?"""
    if path in KEYS:
        return path in SECRETS
    return bool(SECRET_NAME.search(path.rpartition(".")[2])) and not path.endswith("_file")


def instead_of(path: str) -> str:
    """Where this secret may be given, as an answer to one that was given elsewhere."""
    variable = TOKEN if path == "telegram.token" else f"{PREFIX}{path.upper().replace('.', '__')}"
    file = f"{path}_file"
    return f"set {variable}, or {file if file in KEYS else path} in the configuration"


def read_secret_files(written: Written, sections: Iterable[str], problems: Problems) -> None:
    """Put what the `*_file` keys name into the keys they stand for, where no stronger layer gives the secret itself."""
    for path in [path for path in KEYS if f"{path}_file" in KEYS and path.partition(".")[0] in sections]:
        file, direct = written.get(f"{path}_file"), written.get(path)
        if file is None or (direct is not None and direct.place.layer > file.place.layer):
            continue
        if direct is not None and direct.place.layer == file.place.layer:
            name = path.rpartition(".")[2]
            problems.add(file.place, f"{path}_file", f"give {name} or {name}_file, not both")
        elif secret := _read(file, path, problems):
            place = replace(file.place, text=f"{file.place.text} ({file.value})")
            written[path] = Node(secret, place)


def _read(file: Node, path: str, problems: Problems) -> str | None:
    """The secret; None after saying why there is none."""
    given = str(file.value).strip()
    if os.sep not in given and not os.path.exists(given):  # people put the secret itself here
        keep_secret(given)
        wrong = f"names no file in the working directory; if it is the secret itself: {instead_of(path)}"
    else:
        reading = Problems()
        text = read_text(Path(os.path.expanduser(given)), file.place.layer, reading)
        if text is not None and text.strip() and "\n" not in text.strip():
            return text.strip()
        wrong = str(reading.error()) if reading else f"{given} must hold one line, the secret"
    problems.add(file.place, f"{path}_file", wrong)
    return None


def secret_texts(section: BaseModel) -> tuple[str, ...]:
    """Every secret in the settings, for what must blot them out of what is shown. Show them to nobody."""
    found: list[str] = []
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, SecretStr):
            found.append(value.get_secret_value())
        elif isinstance(value, BaseModel):
            found += secret_texts(value)
    return tuple(filter(None, found))
