"""Loads settings from a text, in a folder and an environment that hold nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from cluster_lock.config import Settings, load
from cluster_lock.errors import ConfigError


def load_text(
    folder: Path,
    text: str = "",
    *,
    environ: Mapping[str, str] | None = None,
    dotenv: str | None = None,
    overrides: Mapping[str, str] | None = None,
) -> Settings:
    """`text` as config.yaml, `dotenv` as .env. The names in problems are then "config.yaml" and ".env"."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("config.yaml").write_text(text, encoding="utf-8")
        if dotenv is not None:
            Path(".env").write_text(dotenv, encoding="utf-8")
        state = {"CLUSTER_LOCK_STATE_DIR": str(folder / "state")}
        return load(Path("config.yaml"), environ={**state, **(environ or {})}, overrides=overrides)


def problems_of(
    folder: Path,
    text: str = "",
    *,
    environ: Mapping[str, str] | None = None,
    dotenv: str | None = None,
    overrides: Mapping[str, str] | None = None,
) -> list[str]:
    """What is wrong, line by line; the test fails if nothing is."""
    with pytest.raises(ConfigError) as refused:
        load_text(folder, text, environ=environ, dotenv=dotenv, overrides=overrides)
    assert refused.value.exit_code == 78
    assert str(refused.value).splitlines() == list(refused.value.problems)
    return list(refused.value.problems)
