"""What a check of `cluster-lock doctor` found."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """`advice`: what to do about it. `code`: what the command ends with if this is the first problem."""

    check: str
    outcome: Severity
    text: str
    advice: str | None = None
    code: int = 0

    @classmethod
    def ok(cls, check: str, text: str) -> Finding:
        return cls(check, Severity.OK, text)

    @classmethod
    def warning(cls, check: str, text: str, advice: str | None = None) -> Finding:
        return cls(check, Severity.WARNING, text, advice)

    @classmethod
    def problem(cls, check: str, text: str, code: int = 1, advice: str | None = None) -> Finding:
        return cls(check, Severity.PROBLEM, text, advice, code)
