"""The picture: who led when, what was done to whom, and how fast the updates were handled meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

Span = tuple[float, float]

WIDTH, LEFT, RIGHT = 1100, 90, 30
LANE, BAR = 46, 24
TOP = 118
CHART = 70
COLOURS = ("#2f6fdb", "#d9722b", "#2c9a5b", "#8b54c9", "#c23b62", "#3a9aa8")
DASHED = "stroke='#ccc' stroke-dasharray='3 3'"
RED = "#b3261e"
SANS = "font-family='system-ui, Helvetica, Arial, sans-serif'"


@dataclass(slots=True)
class Lane:
    """One instance. `handled`: the moments at which it began with an update. All times are on one clock."""

    name: str
    led: list[Span] = field(default_factory=list)
    down: list[Span] = field(default_factory=list)
    stopped: list[Span] = field(default_factory=list)
    handled: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that was done at a moment; `gap_ms` of the change that followed, if one did."""

    at: float
    words: str
    gap_ms: float | None


@dataclass(frozen=True, slots=True)
class Picture:
    title: str
    verdict: str
    ok: bool
    span: Span
    lanes: Sequence[Lane]
    marks: Sequence[Mark]

    def svg(self) -> str:
        """The whole file."""
        return _Drawing(self).draw()


class _Drawing:
    def __init__(self, picture: Picture) -> None:
        self._picture = picture
        self._began, ended = picture.span
        self._seconds = max(ended - self._began, 1.0)
        self._lanes_end = TOP + LANE * len(picture.lanes)
        self._height = self._lanes_end + CHART + 74
        self._out: list[str] = []

    def draw(self) -> str:
        self._frame()
        self._axis()
        for number, lane in enumerate(self._picture.lanes):
            self._lane(lane, TOP + LANE * number, COLOURS[number % len(COLOURS)])
        self._marks()
        self._chart()
        self._legend()
        return "\n".join([*self._out, "</svg>", ""])

    def _x(self, at: float) -> float:
        share = min(max((at - self._began) / self._seconds, 0.0), 1.0)
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def _add(self, element: str) -> None:
        self._out.append(element)

    def _text(
        self, x: float, y: float, words: str, size: int, colour: str, anchor: str = "start", more: str = ""
    ) -> None:
        style = f"font-size='{size}' fill='{colour}' text-anchor='{anchor}' {more}"
        self._add(f"<text x='{x}' y='{y}' {style}>{escape(words)}</text>")

    def _box(self, span: Span, y: float, height: float, fill: str, title: str = "", more: str = "") -> None:
        x, right = self._x(span[0]), self._x(span[1])
        inner = f"<title>{escape(title)}</title>" if title else ""
        width = round(max(right - x, 1.0), 1)
        self._add(f"<rect x='{x}' y='{y}' width='{width}' height='{height}' fill='{fill}' {more}>{inner}</rect>")

    def _frame(self) -> None:
        self._add(
            f"<svg xmlns='http://www.w3.org/2000/svg' width='{WIDTH}' height='{self._height}'"
            f" viewBox='0 0 {WIDTH} {self._height}' {SANS}>"
        )
        self._add(
            "<defs><pattern id='stopped' width='6' height='6' patternUnits='userSpaceOnUse'"
            " patternTransform='rotate(45)'><rect width='6' height='6' fill='#fff' fill-opacity='0.55'/>"
            "<rect width='2' height='6' fill='#444'/></pattern></defs>"
        )
        self._add(f"<rect width='{WIDTH}' height='{self._height}' fill='#ffffff'/>")
        self._text(LEFT, 30, self._picture.title, 18, "#111")
        self._text(LEFT, 52, self._picture.verdict, 13, "#1d7a43" if self._picture.ok else RED)

    def _axis(self) -> None:
        bottom = self._lanes_end + CHART + 16
        step = next((each for each in (1, 2, 5, 10, 20, 30, 60, 120, 300) if self._seconds / each <= 16), 600)
        for second in range(0, int(self._seconds) + 1, step):
            x = self._x(self._began + second)
            self._add(f"<line x1='{x}' y1='{TOP - 6}' x2='{x}' y2='{bottom}' stroke='#e3e3e3'/>")
            self._text(x, bottom + 16, f"{second} s", 11, "#777", "middle")

    def _lane(self, lane: Lane, y: float, colour: str) -> None:
        top = y + (LANE - BAR) / 2
        self._text(LEFT - 12, top + BAR / 2 + 4, lane.name, 13, "#222", "end")
        self._box(self._picture.span, top, BAR, "#f1f3f5", f"{lane.name}: standing by")
        for span in lane.down:
            self._box(span, top, BAR, "#ffffff", f"{lane.name}: not running, or starting", DASHED)
        for began, ended in lane.led:
            words = f"{lane.name} led from {began - self._began:.2f} s to {ended - self._began:.2f} s"
            self._box((began, ended), top, BAR, colour, words, "rx='2'")
        for span in lane.stopped:
            self._box(span, top, BAR, "url(#stopped)", f"{lane.name}: stopped for {span[1] - span[0]:.2f} s")

    def _marks(self) -> None:
        """Each at its moment; its words in the first of three rows that is free there."""
        texts = []
        rows_end = [float(-WIDTH)] * 3
        for mark in self._picture.marks:
            x = self._x(mark.at)
            words = mark.words if mark.gap_ms is None else f"{mark.words} · gap {_duration(mark.gap_ms)}"
            width = 6.0 * len(words)
            left = round(min(x, WIDTH - RIGHT - width), 1)
            free = [row for row in range(3) if rows_end[row] <= left]
            row = free[0] if free else min(range(3), key=rows_end.__getitem__)
            rows_end[row] = left + width + 12
            y = TOP - 44 + 14 * row
            line = f"x1='{x}' y1='{y + 3}' x2='{x}' y2='{self._lanes_end}'"
            self._add(f"<line {line} stroke='{RED}' stroke-dasharray='4 3'/>")
            texts.append((left, y, words))
        for left, y, words in texts:  # over all lines, on a white border, so that none runs through a word
            self._text(left, y, words, 11, RED, more="stroke='#ffffff' stroke-width='4' paint-order='stroke'")

    def _chart(self) -> None:
        """Updates a second, in steps of half a second, each instance's share in its colour."""
        step = 0.5
        count = int(self._seconds / step) + 1
        shares = [[0] * count for _ in self._picture.lanes]
        for share, lane in zip(shares, self._picture.lanes, strict=True):
            for at in lane.handled:
                index = int((at - self._began) / step)
                if 0 <= index < count:
                    share[index] += 1
        highest = max((sum(column) for column in zip(*shares, strict=True)), default=0) or 1
        base = self._lanes_end + CHART + 10
        for index in range(count):
            y = float(base)
            for number, share in enumerate(shares):
                if share[index]:
                    height = round(share[index] / highest * (CHART - 8), 1)
                    y -= height
                    at = self._began + index * step
                    self._box((at, at + step * 0.9), y, height, COLOURS[number % len(COLOURS)])
        self._text(LEFT - 12, base - CHART / 2 + 10, "updates/s", 11, "#777", "end")
        self._text(LEFT - 12, base - CHART + 22, f"{highest / step:g}", 11, "#777", "end")

    def _legend(self) -> None:
        y = self._height - 26
        x = float(LEFT)
        kinds = (
            (COLOURS[0], "", "leads"),
            ("#f1f3f5", "", "stands by"),
            ("#ffffff", DASHED, "not running, or starting"),
            ("url(#stopped)", "stroke='#999'", "stopped (SIGSTOP)"),
        )
        for fill, more, words in kinds:
            self._add(f"<rect x='{x}' y='{y}' width='22' height='12' fill='{fill}' {more}/>")
            self._text(x + 28, y + 10, words, 11, "#555")
            x += 60 + 6.2 * len(words)


def _duration(milliseconds: float) -> str:
    return f"{milliseconds:.0f} ms" if milliseconds < 1000 else f"{milliseconds / 1000:.2f} s"
