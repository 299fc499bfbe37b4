"""The status page in a real browser. `CLUSTER_LOCK_SCREENSHOTS=FOLDER` keeps pictures of it."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from typing import Any

import pytest
from support.aio import run, until
from support.browser import chromium, opened
from support.health import LOCK, TIMING, TRUSTED, leader_board, poller, renew, standby_board
from support.sessions import session, standby

from cluster_lock import clock
from cluster_lock.drivers.memory import MemoryBackend
from cluster_lock.election import Election, Term
from cluster_lock.health import Board, open_health
from cluster_lock.health.board import NoPeers
from cluster_lock.health.page import page
from cluster_lock.health.peers import SessionPeers
from cluster_lock.health.server import HealthServer
from cluster_lock.host.listen_address import ListenAddress
from cluster_lock.observer import Ending
from cluster_lock.values import EndCode, EndReason, Origin

LATE = "the lease was last renewed 11.3 s ago (ttl 15 s): etcd does not answer within 4.0 s"


class Others(NoPeers):
    """Who else is there, as a test wants it."""

    def __init__(self) -> None:
        self.led_by: dict[str, Any] | None = None
        self.waiting: list[dict[str, Any]] = []

    def leader(self, name: str) -> Mapping[str, Any] | None:
        return self.led_by

    def standbys(self, name: str) -> Sequence[Mapping[str, Any]]:
        return self.waiting


def somebody(instance: str, term: int = 0) -> dict[str, Any]:
    return {"instance": instance, "host": f"{instance}.example", "pid": 4711, "since": clock.utc_text(), "term": term}


def board_with_a_past() -> Board:
    """A leader with some terms behind it, two standbys, and a bot with a conflict."""
    board = standby_board("web-1", worker=True, stall_limit=60.0)
    board.worker_changed("starting", 4712)
    board.worker_changed("ready", 4712)
    others = Others()
    others.waiting = [somebody("web-2"), somebody("web-3")]
    board.peers = others
    lock = board.locks[LOCK]
    lock.see(somebody("web-3", 1041))
    board.term_began(LOCK, 1066, Origin.FOUND_FREE)
    board.term_ended(LOCK, EndReason(LATE, EndCode.NOT_RENEWED), Ending.LOST)
    lock.see({**somebody("web-2", 1102)})
    board.term_began(LOCK, 1138, Origin.HANDED_OVER)
    board.term_ended(LOCK, EndReason("stepped down: SIGTERM", EndCode.STOPPED), Ending.HANDED_OVER, "web-2")
    lock.see({**somebody("web-2", 1140), "handed_over_by": "web-1"})
    board.lease_granted(TIMING, clock.now() + TRUSTED)
    board.term_began(LOCK, 1193, Origin.RELEASED)
    board.pollers.tell(
        [poller(handled=10_482, failed=3, conflicts_60s=1, pending=2, last_error="HTTP 502 Bad Gateway")]
    )
    return board


@pytest.mark.browser
def test_a_hand_over_is_seen_live() -> None:
    """The leader, its standbys and the lease are shown; a hand-over between two real elections shows at once, with its
    reason and without a reload; nothing fails."""
    problems: list[str] = []

    async def work(term: Term) -> None:
        await term.wait_step_down()

    async def main() -> None:
        store, board = MemoryBackend(), Board("web-1", backend="memory")
        async with (
            session(store, "web-1", observer=board) as first,
            session(store, "web-2") as second,
            open_health(board, "127.0.0.1:0") as url,
            chromium() as browser,
        ):
            assert url is not None
            board.peers = SessionPeers(first)
            ours, other = Election(first), Election(second)
            leading = asyncio.create_task(ours.lead(LOCK, work))
            await until(lambda: ours.term(LOCK))
            waiting = asyncio.create_task(other.lead(LOCK, work))
            await until(lambda: standby(store, "web-2").lease)
            async with opened(browser, f"{url}/", problems) as tab:
                await tab.get_by_text("leads, this instance").wait_for()
                assert await tab.get_by_role("heading", name=f"Lock {LOCK}").is_visible()
                await tab.get_by_role("region", name="Standbys").get_by_text("web-2").wait_for()
                assert await tab.get_by_text("memory, answers").is_visible()
                assert await tab.get_by_text("The number of a term is its fencing token.").is_visible()
                meter = tab.get_by_role("meter")
                assert await meter.get_attribute("aria-valuemax") == f"{TRUSTED:g}"
                assert float(await meter.get_attribute("aria-valuenow") or 0) > 0
                term = ours.term(LOCK)
                assert term is not None
                term.step_down("asked by anna")
                await tab.get_by_text("this instance: standby").wait_for()
                await tab.get_by_text("handed over to web-2: stepped down: asked by anna").wait_for()
                await tab.get_by_text("lock was handed over by web-1").wait_for()
                assert await tab.locator("#news").text_content() == f"web-2 leads {LOCK}"
                assert await tab.title() == "web-1: standby"
            ours.stop()
            other.stop()
            await asyncio.gather(leading, waiting)

    run(main())
    assert problems == []


@pytest.mark.browser
async def test_trouble_shows_and_goes() -> None:
    """A lease that is lost shows as an alert with its reason, and goes with a new one; so does a cut connection."""
    problems: list[str] = []
    board = leader_board("web-1")
    first, again = HealthServer(board, ListenAddress("127.0.0.1", 0)), None
    async with chromium() as browser:
        await first.start()
        try:
            async with opened(browser, f"{first.url}/", problems) as tab:
                await tab.get_by_text("leads, this instance").wait_for()
                assert not await tab.get_by_role("heading", name="Not ready").is_visible()
                board.lease_lost(LATE)
                await tab.get_by_role("heading", name="Not ready").wait_for()
                assert await tab.get_by_text(f"there is no lease: {LATE}").first.is_visible()
                assert await tab.locator("#lease-text").text_content() == "none"
                assert await tab.get_by_text("etcd, in trouble").is_visible()
                assert await tab.locator("#lease-note time").is_visible()
                board.lease_granted(TIMING, clock.now() + TRUSTED)
                await tab.get_by_role("heading", name="Not ready").wait_for(state="hidden")
                assert problems == []
                # From here on the browser complains of what does not answer.
                await first.close()
                await tab.get_by_text("no connection to this process, trying again").wait_for()
                assert await tab.locator("#lease-text").text_content() == "unknown"
                again = HealthServer(board, first.address)
                await again.start()
                await tab.get_by_text("live", exact=True).wait_for()
        finally:
            await first.close()
            if again is not None:
                await again.close()


@pytest.mark.browser
def test_markup_stays_text() -> None:
    """A name that is markup, wherever it comes from, is shown as it is and does nothing; and the last leader is not
    said to lead when we cannot know."""
    problems: list[str] = []
    evil = "<img src=x onerror=document.title='owned'><script>document.title='owned'</script>"

    async def main() -> None:
        board = standby_board(evil)
        others = Others()
        others.led_by, others.waiting = {**somebody(evil, 5), "host": evil, "since": evil}, [somebody(evil)]
        board.peers = others
        board.standing_by(evil)
        board.cooling_down(evil, 30, evil)
        board.look_around()
        board.pollers.tell([poller(last_error=evil, waiting=evil)])
        async with open_health(board, "127.0.0.1:0") as url, chromium() as browser:
            assert url is not None
            async with opened(browser, f"{url}/", problems) as tab:
                await tab.get_by_role("heading", name=f"Lock {evil}").wait_for()
                board.lease_lost(evil)
                await tab.get_by_text("led when last seen").first.wait_for()
                assert await tab.locator("main img").count() == 0
                assert await tab.locator("main script").count() == 0
                assert await tab.evaluate("document.querySelectorAll('script').length") == 1
                assert "owned" not in (await tab.title()).removeprefix(evil)

    run(main())
    assert problems == []


@pytest.mark.browser
def test_it_fits_and_can_be_read() -> None:
    """Light and dark, on a screen and on a phone: nothing is cut off sideways, and all text has contrast."""
    problems: list[str] = []

    async def main() -> None:
        board = board_with_a_past()
        async with open_health(board, "127.0.0.1:0") as url, chromium() as browser:
            assert url is not None
            for scheme, width in itertools.product(("light", "dark"), (1000, 360)):
                async with opened(browser, f"{url}/", problems, width=width, color_scheme=scheme) as tab:
                    renew(board)
                    await tab.get_by_text("leads, this instance").wait_for()
                    await tab.get_by_text("polling", exact=True).first.wait_for()
                    assert await tab.evaluate("document.documentElement.scrollWidth") <= width
                    assert await tab.evaluate(WEAK_TEXT) == [], (scheme, width)
                    if folder := os.environ.get("CLUSTER_LOCK_SCREENSHOTS"):
                        await tab.screenshot(path=f"{folder}/status-{scheme}-{width}.png", full_page=True)

    run(main())
    assert problems == []


WEAK_TEXT = """() => {
  const parts = (colour) => (colour.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const colour = parts(getComputedStyle(node).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const weak = [];
  for (const node of document.querySelectorAll('body *')) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!own || !node.checkVisibility()) continue;
    const [a, b] = [light(parts(getComputedStyle(node).color)), light(behind(node))].sort((x, y) => y - x);
    const contrast = (a + 0.05) / (b + 0.05);
    if (contrast < 4.5) weak.push(`${node.textContent}: ${contrast.toFixed(2)}`);
  }
  return weak;
}"""
"""The texts whose contrast with what is behind them is below WCAG's 4.5 to 1."""


class _Structure(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.levels: list[int] = []
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs
        if re.fullmatch(r"h[1-6]", tag):
            self.levels.append(int(tag[1]))


def test_the_file_is_self_contained() -> None:
    """It loads nothing from anywhere, has no inline handler, no way to set HTML, one first heading and a language."""
    text = page().decode()
    structure = _Structure()
    structure.feed(text)
    assert structure.levels.count(1) == 1
    assert ("lang", "en") in structure.attributes
    assert not [name for name, _ in structure.attributes if name.startswith("on") or name == "style"]
    targets = [value or "" for name, value in structure.attributes if name in ("src", "href", "action")]
    assert all(target.startswith(("data:", "/")) for target in targets)
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function(", "localStorage"):
        assert way not in text
    assert len(text) < 40_000
