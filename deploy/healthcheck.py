"""For HEALTHCHECK: is the bot of this container well? Ends with 0 or 1, and says what it found in a line.

The process says in its state directory where it serves its health, wherever `health` in its settings has put that.
Run every few seconds, so it loads nothing of the library and little of Python's: python -I -S healthcheck.py
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import sys
from pathlib import Path

STATE = "/var/lib/cluster-lock"
DEFAULT = "http://127.0.0.1:9876"
WITHIN = 3.0
SUCCESSOR = "+next.json"


def main() -> int:
    try:
        well, said = health(Path(os.environ.get("CLUSTER_LOCK_STATE_DIR") or STATE, "instances"))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, http.client.HTTPException) as error:
        well, said = False, f"{type(error).__name__}: {error}"
    sys.stdout.write(f"{said}\n")
    return 0 if well else 1


def health(folder: Path) -> tuple[bool, str]:
    told = newest(folder)
    if told is not None and told["health"] is None:
        return told["ready"], "it serves no health" if told["ready"] else "it is starting"
    # Without a word of it: a program of one's own, which may not have the name of an instance.
    address = DEFAULT if told is None else told["health"]
    status, said = asked(address.removeprefix("http://"))
    return status == 200, said


def newest(folder: Path) -> dict | None:
    """What the instance that was started last says of itself; others are what crashes left in a volume."""
    found = [path for path in folder.glob("*.json") if not path.name.endswith(SUCCESSOR)]
    return json.loads(max(found, key=lambda path: path.stat().st_mtime).read_bytes()) if found else None


def asked(address: str) -> tuple[int, str]:
    host, _, port = address.rpartition(":")
    here = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)
    connection = http.client.HTTPConnection(here.strip("[]"), int(port), timeout=WITHIN)
    with contextlib.closing(connection):
        connection.request("GET", "/readyz", headers={"Host": f"{here}:{port}"})
        answer = connection.getresponse()
        return answer.status, answer.read(4096).decode(errors="replace").strip()


if __name__ == "__main__":
    sys.exit(main())
