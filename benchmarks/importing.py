"""What `import cluster_lock` costs over a bare interpreter. Target: at most 100 ms.

python benchmarks/importing.py [--rounds 20]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

STATEMENTS = {
    "bare Python": "pass",
    "import cluster_lock": "import cluster_lock",
    "from cluster_lock import Session": "from cluster_lock import Session",
    "load settings": "from cluster_lock import load_settings",
    "import cluster_lock.aiogram": "import cluster_lock.aiogram",
    "import aiogram": "import aiogram",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds
    taken: dict[str, list[float]] = {name: [] for name in STATEMENTS}
    for _ in range(rounds):
        for name, statement in STATEMENTS.items():
            before = time.perf_counter()
            subprocess.run([sys.executable, "-c", statement], check=True)
            taken[name].append(time.perf_counter() - before)
    bare = statistics.median(taken["bare Python"])
    for name, times in taken.items():
        print(f"{name:36} {1000 * (statistics.median(times) - bare):8.1f} ms over bare Python")


if __name__ == "__main__":
    main()
