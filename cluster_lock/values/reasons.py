"""Why a term ended."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Self


class EndCode(StrEnum):
    """Why a term ended, in one of a few words. They are the `reason` of a metric, so none holds a name or a number."""

    STOPPED = "stopped"
    """The program was asked to stop."""
    STEP_DOWN = "step_down"
    """A person, or the work itself, asked for it."""
    OUT_OF_REACH = "telegram_out_of_reach"
    CONFLICTS = "conflicts"
    """Somebody polls the bot outside of the lock."""
    BOT_FAILED = "bot_failed"
    """Another bot of the same program cannot go on."""
    WORKER_ENDED = "worker_ended"
    """The process that did the work is gone."""
    WORK_DONE = "work_done"
    NOT_RENEWED = "lost_not_renewed"
    LEASE_GONE = "lost_lease_gone"
    """The backend says so."""
    STORE_SET_BACK = "lost_store_set_back"
    KEY_GONE = "lost_key_gone"
    """Deleted, or held by somebody else."""
    SESSION_ENDED = "lost_session_ended"
    LOST = "lost_other"

    @property
    def is_loss(self) -> bool:
        """Could the lock not be proved to be held any more? Else the term ended in good order."""
        return self in _LOSSES


_LOSSES = frozenset(
    {
        EndCode.NOT_RENEWED,
        EndCode.LEASE_GONE,
        EndCode.STORE_SET_BACK,
        EndCode.KEY_GONE,
        EndCode.SESSION_ENDED,
        EndCode.LOST,
    }
)


class EndReason(str):
    """A sentence for people, and its code. Whatever makes another text of it makes another EndReason, or loses the
    code."""

    __slots__ = ("code",)

    code: EndCode

    def __new__(cls, text: str, code: EndCode) -> Self:
        made = super().__new__(cls, text)
        made.code = code
        return made

    def __getnewargs__(self) -> tuple[str, EndCode]:  # type: ignore[override]
        return str(self), self.code

    @classmethod
    def of(cls, text: str, otherwise: EndCode) -> EndReason:
        """`text` as it is if it is a reason, else one with the code `otherwise`."""
        return text if isinstance(text, EndReason) else cls(text, otherwise)

    def to_json(self) -> list[str]:
        """For another process: JSON would keep the sentence only."""
        return [self.code.value, str(self)]

    @classmethod
    def from_json(cls, content: Sequence[str]) -> Self:
        """Raises ValueError for what `to_json` does not write."""
        code, text = content
        return cls(text, EndCode(code))
