"""The survivors that may survive: equivalent.toml, each with its reason."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from .trials import Outcome, Trial

LIST = Path(__file__).with_name("equivalent.toml")


@dataclass(frozen=True)
class Equivalent:
    file: str
    operator: str
    was: str
    becomes: str
    why: str

    def is_of(self, trial: Trial) -> bool:
        mine = (self.file, self.operator, self.was, self.becomes)
        return mine == (trial.file, trial.operator, trial.was, trial.becomes)

    def wrong(self, checkout: Path, trials: list[Trial]) -> str:
        """Why the entry is none any more, empty if it stands."""
        path = checkout / self.file
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        if self.was not in map(str.strip, lines):
            return "the file has no such line any more"
        dead = [trial for trial in trials if self.is_of(trial) and trial.outcome is not Outcome.SURVIVED]
        return f"it is {dead[0].outcome}: {dead[0].by}" if dead else ""


def equivalents() -> list[Equivalent]:
    return [Equivalent(**each) for each in tomllib.loads(LIST.read_text(encoding="utf-8")).get("mutant", ())]
