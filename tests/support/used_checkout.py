"""A checkout as people have it after a while: with their tokens, keys and notes in it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from .docker import CHECKOUT

PLANTED = b" ".join([b"planted-8c1f:", b"nobody", b"else", b"may", b"read", b"this"])
"""In pieces here, so that this file itself does not have it."""

_LEFT = (
    *(".git", ".venv", ".tox", ".tools", ".junit", ".mypy_cache", ".pytest_cache", ".ruff_cache"),
    *("__pycache__", "build", "dist", "results"),
)

_PLACES = (
    ".env",
    ".env.production",
    "id_rsa",
    "config.local.yaml",
    "bot.key",
    "bot/.env",
    "bot/config.yaml",
    "bot/secrets/telegram_token",
    "bot/telegram_token",
    "bot/id_rsa",
    "bot/demo/token",
    "benchmarks/results/last.json",
    "cluster_lock/.env",
    "cluster_lock/config.yaml",
    "cluster_lock/config/local.yaml",
    "cluster_lock/config/example.yaml~",
    "cluster_lock/drivers/client.key",
    "cluster_lock/secrets/token",
    "cluster_lock/telegram_token",
    "cluster_lock/drivers/file/token",
    "deploy/.env",
    "deploy/file/secrets/telegram_token",
    "deploy/etcd/certs/ca.key",
    "deploy/etcd/secrets/telegram_token",
    "deploy/etcd/compose.override.yaml",
    "deploy/etcd/set-up-old/ca.key",
    "deploy/etcd/set-up-old/token",
    "deploy/etcd/set-up-roles.bak",
    "deploy/etcd/notes.md",
    "deploy/consul/certs/agent.crt",
    "deploy/consul/secrets/management_token",
    "deploy/consul/agent-token.hcl",
    "deploy/consul/compose.yaml.orig",
    "deploy/consul/gossip.hcl",
    "deploy/kubernetes/secret.yaml",
    "deploy/kubernetes/compose-secret.yaml",
    "deploy/prometheus/web.yml",
    "deploy/systemd/bot.env",
    "deploy/systemd/my.service",
    "docs/examples/existing_bot/.env",
    "docs/notes.txt",
    "docs/private.md",
    "requirements/.netrc",
    "requirements/pip.conf",
    "requirements/token",
    "scripts/.pypirc",
    "scripts/token",
    "scripts/lock~",
    "tests/.env",
    "tests/test_deploy/telegram_token",
)

MODULES = frozenset({"bot/settings.py", "cluster_lock/settings_private.py"})
"""Python modules that are not the project's: only the repository could tell that, and a build does not ask it."""


def used_checkout(into: Path) -> Path:
    """A copy of the checkout with something to hide in each of these places, and config.yaml filled in."""
    shutil.copytree(CHECKOUT, into, ignore=shutil.ignore_patterns(*_LEFT))
    for place in _PLACES:
        path = into / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PLANTED)
    for module in MODULES:
        (into / module).write_text("# of the person who works here\n")
    with (into / "config.yaml").open("ab") as config:
        config.write(b"# " + PLANTED)
    return into


def tracked_files() -> set[str] | None:
    """What belongs to the repository; None where this is not one."""
    if not (CHECKOUT / ".git").exists():
        return None
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    return {name for name in listed.stdout.split("\0") if name and (CHECKOUT / name).exists()}
