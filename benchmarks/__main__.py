"""`make bench`: every benchmark once, one after the other. Ratios count, not milliseconds: no machine is quiet."""

from __future__ import annotations

import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).parent


def main() -> int:
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("aiogram", "aiohttp", "grpcio", "protobuf"))
    print(f"{platform.platform()}, Python {platform.python_version()}, {versions}")
    failed = 0
    for script in sorted(HERE.glob("[a-z]*.py")):
        print(f"\n== {script.stem}", flush=True)
        failed |= subprocess.run([sys.executable, str(script)], cwd=HERE.parent, check=False).returncode
    return failed


if __name__ == "__main__":
    sys.exit(main())
