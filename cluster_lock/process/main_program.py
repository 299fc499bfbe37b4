"""Which program this process runs."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from cluster_lock.host.state_directory import file_name


def main_program(longest: int) -> tuple[str, str]:
    """A name for the program that was started, and the path of its file. They are the same, no matter who starts that
    file, how, and from where. The name, as that of a file, has at most `longest` characters.

    Raises ValueError if it has no file (`python -c`, a prompt).
    """
    file = getattr(sys.modules["__main__"], "__file__", None)
    if file is None:
        raise ValueError("what runs here is no program in a file, whose path would be its name: give a name")
    path = str(Path(file).resolve())
    if len(file_name(path)) <= longest:
        return path, path
    return f"/{hashlib.sha256(path.encode(errors='surrogateescape')).hexdigest()}", path
