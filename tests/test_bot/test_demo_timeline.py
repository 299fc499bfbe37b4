"""The demo's picture: well-formed, complete, and true to its numbers."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

from bot.demo.picture import picture_of, reigns
from bot.demo.timeline import Lane, Mark, Picture
from bot.demo.verdict import judge
from cluster_lock.testing.telegram import BotKey, Poll, Report, SeenPoll

SVG = "{http://www.w3.org/2000/svg}"


def seen(client: str, *spans: tuple[float, float]) -> SeenPoll:
    return SeenPoll(Poll(BotKey(42), client, spans[0][0] if spans else 0.0), spans, late=not spans)


def picture(*lanes: Lane, marks: tuple[Mark, ...] = ()) -> ET.Element:
    text = Picture("etcd & friends", "all <well>", ok=True, span=(100.0, 110.0), lanes=lanes, marks=marks).svg()
    return ET.fromstring(text)


def test_reigns_join_the_polls_of_one_leader() -> None:
    """Polls of one client that no other's interrupts are one reign; polls that were never live are none."""
    polls = [seen("a#1", (0, 1)), seen("a#1", (1.1, 2), (3, 4)), seen("b#2"), seen("b#2", (5, float("inf")))]
    assert reigns(polls, until=9.0) == [("a#1", (0, 4)), ("b#2", (5, 9.0))]


def test_a_leader_that_lost_its_term_did_not_lead_meanwhile() -> None:
    """A long pause between the polls of one client parts its reign in two."""
    assert reigns([seen("a#1", (0, 1)), seen("a#1", (5, 6))], until=9.0) == [("a#1", (0, 1)), ("a#1", (5, 6))]


def test_a_leader_that_returns_has_two_reigns() -> None:
    """Who leads again after another one has a reign of its own for that."""
    polls = [seen("a#1", (0, 1)), seen("b#2", (2, 3)), seen("a#1", (4, 5))]
    assert reigns(polls, until=9.0) == [("a#1", (0, 1)), ("b#2", (2, 3)), ("a#1", (4, 5))]


def test_the_picture_shows_who_led_when() -> None:
    """The bar of a reign begins and ends where its time is on the axis, and says so."""
    root = picture(Lane("bot-1", led=[(102.0, 107.0)]), Lane("bot-2"))
    [bar] = [box for box in root.iter(f"{SVG}rect") if "led from" in (box.findtext(f"{SVG}title") or "")]
    assert bar.findtext(f"{SVG}title") == "bot-1 led from 2.00 s to 7.00 s"
    seconds = {text.text: float(text.get("x", "nan")) for text in root.iter(f"{SVG}text") if text.text}
    assert abs(float(bar.get("x", "nan")) - seconds["2 s"]) < 1
    assert abs(float(bar.get("x", "nan")) + float(bar.get("width", "nan")) - seconds["7 s"]) < 1


def test_the_picture_names_the_faults() -> None:
    """Every fault is written at its moment, with the gap where the leader changed."""
    marks = (Mark(101.0, "kill -9 of bot-1", 2345.6), Mark(105.0, "etcd restarted", None), Mark(109.9, "last", 12.3))
    words = [text.text for text in picture(Lane("bot-1"), marks=marks).iter(f"{SVG}text")]
    assert "kill -9 of bot-1 · gap 2.35 s" in words
    assert "etcd restarted" in words
    assert "last · gap 12 ms" in words


def test_nothing_is_drawn_outside() -> None:
    """Whatever the times, no box and no line leaves the picture."""
    lane = Lane(
        "bot-1", led=[(90.0, 130.0)], down=[(50.0, 60.0)], stopped=[(109.0, 200.0)], handled=[99.0, 100.0, 120.0]
    )
    root = picture(lane, marks=(Mark(99.0, "before", None), Mark(300.0, "after " * 30, None)))
    width = float(root.get("width", "nan"))
    for box in root.iter(f"{SVG}rect"):
        if box.get("x") is not None:
            assert 0 <= float(box.get("x", "nan")) <= width
            assert float(box.get("x", "nan")) + float(box.get("width", "nan")) <= width + 1


def test_the_picture_needs_nothing_else() -> None:
    """The file refers to no other file and no script: it opens anywhere."""
    text = Picture("t", "v", ok=False, span=(0.0, 1.0), lanes=[Lane("bot-1")], marks=[]).svg()
    assert not re.search(r"href|<script|@import", text)


def test_a_stranger_is_shown() -> None:
    """A poller that is none of the instances gets a lane of its own."""
    report = Report(*(0,) * 11)
    verdict = judge("file", 1, report, [], [], [])
    made = picture_of(verdict, [], [seen("somebody else", (1, 2))], [], (0.0, 9.0))
    assert [(lane.name, lane.led) for lane in made.lanes] == [("somebody else", [(1, 2)])]
