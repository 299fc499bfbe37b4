"""Text for people: lines and tables, with rich where it is installed and a person looks on, plain where it goes into a
pipe or is long."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from cluster_lock.host.masking import masked

from .streams import steered, stop_if_unread

if TYPE_CHECKING:
    from rich.console import Console

LONG = 100
"""Rows. rich needs seconds to lay out a thousand."""


@dataclass(frozen=True, slots=True)
class Line:
    """`style`: as rich calls them ("red", "bold")."""

    text: str
    style: str = ""


@dataclass(slots=True)
class Table:
    titles: Sequence[str]
    right: Collection[str] = ()
    rows: list[tuple[Sequence[str], str]] = field(default_factory=list)

    def add(self, cells: Sequence[str], style: str = "") -> None:
        self.rows.append((tuple(map(printable, cells)), style))

    def lines(self) -> Iterator[str]:
        cells = [self.titles, *(row for row, _ in self.rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        for row in cells:
            aligned = (
                cell.rjust(width) if title in self.right else cell.ljust(width)
                for cell, width, title in zip(row, widths, self.titles, strict=True)
            )
            yield "  ".join(aligned).rstrip()


Part = Line | Table


def printable(text: str) -> str:
    """Masked, before a line is folded somewhere inside a secret, and without what would steer a terminal: records are
    written by anybody who may write to the backend."""
    text = masked(text)
    return text if text.isprintable() else "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def show(parts: Sequence[Part]) -> None:
    """Print them."""
    long = any(isinstance(part, Table) and len(part.rows) > LONG for part in parts)
    if _can_be_rich() and not long:
        _console().print(_rich(parts))
        return
    for part in parts:
        print(printable(part.text) if isinstance(part, Line) else "\n".join(part.lines()))


@contextmanager
def living() -> Iterator[Callable[[Sequence[Part]], None]]:
    """A place on the terminal where one picture takes the place of the one before; a pipe gets them one after the
    other."""
    if not _can_be_rich():
        yield _in_turn
        return
    from rich.live import Live

    with Live("", console=_console(), auto_refresh=False) as live:
        yield lambda parts: live.update(_rich(parts), refresh=True)


def _can_be_rich() -> bool:
    return sys.stdout.isatty() and find_spec("rich") is not None


def _in_turn(parts: Sequence[Part]) -> None:
    show(parts)
    print(flush=True)
    stop_if_unread()


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False, file=steered())


def _rich(parts: Sequence[Part]) -> Any:
    from rich import table
    from rich.console import Group
    from rich.text import Text

    made: list[Any] = []
    for part in parts:
        if isinstance(part, Line):
            made.append(Text(printable(part.text), style=part.style))
            continue
        grid = table.Table(box=None, pad_edge=False, header_style="bold")
        for title in part.titles:
            grid.add_column(title, justify="right" if title in part.right else "left")
        for cells, style in part.rows:
            grid.add_row(*map(Text, cells), style=style or None)
        made.append(grid)
    return Group(*made)
