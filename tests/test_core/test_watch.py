"""The watch: what it tells of its own trouble, and which news it believes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from support.sessions import PREFIX, session

from cluster_lock.aio import end
from cluster_lock.drivers.memory import MemoryBackend, MemoryDriver
from cluster_lock.errors import BackendUnavailable, PermissionRefused
from cluster_lock.session.watch import PAUSE, SLACK, Watch
from cluster_lock.testing.faulty import DriverFault, FaultyDriver, refuse, slow_reply
from cluster_lock.values import Entry

pytestmark = pytest.mark.virtual

AT_MOST = 15.0
NO_ANSWER = refuse(BackendUnavailable("no answer"))
DENIED = refuse(PermissionRefused("denied"))


class Followed:
    """A watch of the key k on a driver with faults."""

    def __init__(self) -> None:
        self.store = MemoryBackend()
        self.driver = FaultyDriver(MemoryDriver(self.store), request_timeout=1000)
        self.renews = True
        self.heard: list[tuple[int, int]] = []
        self.went_back: list[str] = []
        self.watch = Watch(
            self.driver,
            AT_MOST,
            heard=lambda entry, asked: self.heard.append((entry.index, asked)),
            went_back=self.went_back.append,
            renews=lambda: self.renews,
        )
        self.watch.follow("k")

    def news(self, index: int, lease: str | None = None, asked: int = -1) -> None:
        self.watch.take({"k": Entry("k", lease, index, None)}, asked)


@asynccontextmanager
async def following() -> AsyncIterator[Followed]:
    followed = Followed()
    running = asyncio.ensure_future(followed.watch.run())
    try:
        yield followed
    finally:
        running.cancel()
        await asyncio.wait([running])


def warnings(caplog: pytest.LogCaptureFixture) -> int:
    return sum("cannot watch the locks" in record.getMessage() for record in caplog.records)


async def test_a_watch_that_alone_gets_no_answer_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """A watch that gets no answer is told of once, when that has lasted for a ttl in which renewals were answered; and
    again if it comes back."""
    async with following() as followed:
        followed.renews = False
        followed.driver.always("wait_changed", NO_ANSWER)
        await asyncio.sleep(10 * AT_MOST)
        assert warnings(caplog) == 0, "of a backend that is down the lease tells"
        followed.renews = True
        for times in (1, 2):
            followed.driver.always("wait_changed", NO_ANSWER)
            await asyncio.sleep(AT_MOST - 2)
            assert warnings(caplog) == times - 1
            await asyncio.sleep(10 * AT_MOST)
            assert warnings(caplog) == times
            followed.driver.always("wait_changed", None)
            await asyncio.sleep(2 * AT_MOST)
        assert followed.watch.refused is None


async def test_a_refusal_ends_a_wait_only_if_nothing_was_ever_heard(caplog: pytest.LogCaptureFixture) -> None:
    """What the backend refuses from the first moment on is an error for those that wait; what it refuses later is told
    at once, and sat out."""
    async with following() as followed:
        followed.driver.always("wait_changed", DENIED)
        await asyncio.sleep(1)
        assert isinstance(followed.watch.refused, PermissionRefused)
        followed.driver.always("wait_changed", None)
        await asyncio.sleep(AT_MOST)
        assert followed.watch.refused is None
        before = warnings(caplog)
        followed.driver.always("wait_changed", DENIED)
        await asyncio.sleep(AT_MOST + 2)
        assert followed.watch.refused is None
        assert warnings(caplog) == before + 1


async def test_a_wait_that_hangs_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    """A wait that is not answered two seconds after its length is sent again."""
    caplog.set_level(logging.DEBUG)
    async with following() as followed:
        await asyncio.sleep(0.1)
        followed.driver.always("wait_changed", slow_reply(900))
        await asyncio.sleep(AT_MOST)  # the one that is under way ends
        sent = followed.driver.calls["wait_changed"]
        assert SLACK == 2.0
        await asyncio.sleep(AT_MOST + SLACK - 1)
        assert followed.driver.calls["wait_changed"] == sent
        await asyncio.sleep(1.5)
        assert followed.driver.calls["wait_changed"] == sent + 1


async def test_another_name_is_followed_at_once(caplog: pytest.LogCaptureFixture) -> None:
    """A name that is followed in the middle of a wait is asked for at once, as no trouble."""
    async with following() as followed:
        await asyncio.sleep(1)
        sent = followed.driver.calls["wait_changed"]
        followed.watch.follow("other")
        await asyncio.sleep(0.01)
        assert followed.driver.calls["wait_changed"] == sent + 1
        assert "other" in followed.watch.entries


async def test_a_watch_that_knows_of_no_renewals_tells_too(caplog: pytest.LogCaptureFixture) -> None:
    """Where nobody says whether the backend answers others, a watch without an answer is told of after a ttl."""
    driver = FaultyDriver(MemoryDriver())
    driver.always("wait_changed", NO_ANSWER)
    watch = Watch(driver, AT_MOST, heard=lambda entry, asked: None, went_back=lambda why: None)
    watch.follow("k")
    running = asyncio.ensure_future(watch.run())
    await asyncio.sleep(2 * AT_MOST)
    await end([running])
    assert warnings(caplog) == 1


@pytest.mark.parametrize("silent", [False, True], ids=["the watch alone", "the backend"])
async def test_a_session_knows_whether_its_watch_alone_gets_no_answer(
    silent: bool, store: MemoryBackend, caplog: pytest.LogCaptureFixture
) -> None:
    """A session that renews its lease tells of a watch without an answer; one whose backend is away does not."""
    driver = FaultyDriver(MemoryDriver(store))
    async with session(store, "a", driver=driver) as a:
        hold = await a.lock("x").acquire()
        await asyncio.sleep(1)
        if silent:
            driver.down()
            await hold.wait_lost()
            await asyncio.sleep(3 * AT_MOST)
        else:
            driver.always("wait_changed", NO_ANSWER)
            await asyncio.sleep(3 * AT_MOST)
        assert warnings(caplog) == (0 if silent else 1)
        await hold.end({})


@pytest.mark.parametrize("fault", [NO_ANSWER, DENIED], ids=["silent", "refused"])
async def test_a_question_without_an_answer_is_asked_again(fault: DriverFault) -> None:
    """Whether the store was set back, when a watch tells something older, is asked until there is an answer."""
    async with following() as followed:
        await asyncio.sleep(1)
        saved = followed.store.save()
        followed.store.stranger_writes(PREFIX + "k", b"news")
        await asyncio.sleep(1)
        followed.driver.next("read", fault)
        followed.store.restore(saved)
        await asyncio.sleep(2 * PAUSE[1])
        assert len(followed.went_back) == 1


async def test_each_state_is_news_once() -> None:
    """A state that is known is no news, unless it is the answer to a read; another lease at the same index is."""
    followed = Followed()
    news = followed.watch.news
    followed.news(5)
    assert news.is_set()
    news = followed.watch.news
    followed.news(5)
    assert (followed.heard, news.is_set()) == ([(5, -1)], False)
    followed.news(5, asked=0)
    assert (followed.heard, news.is_set()) == ([(5, -1), (5, 0)], False)
    followed.news(5, lease="somebody's")
    assert (followed.heard[2:], news.is_set()) == ([(5, -1)], True)


async def test_only_a_read_that_was_sent_later_shows_a_set_back() -> None:
    """An older state is dropped, unless a read that was sent when the newer one was known already shows it: then
    nothing that was known counts."""
    followed = Followed()
    followed.news(5)
    followed.news(4)
    followed.news(4, asked=followed.watch.moment - 1)
    assert (followed.heard, followed.went_back) == ([(5, -1)], [])
    followed.news(5, asked=followed.watch.moment)  # no change, so it has been known for as long as before
    followed.news(4, asked=followed.watch.moment)
    assert followed.went_back == ["k was known to have changed at 5, it is at 4"]
    assert followed.watch.entries["k"].index == 4


async def test_a_name_is_forgotten_with_its_last_follower() -> None:
    """What is known of a name is kept until the last one who follows it stops."""
    followed = Followed()
    with followed.watch.following("k"):
        followed.news(5)
    assert followed.watch.entries.keys() == {"k"}
    followed.watch.unfollow("k")
    assert (followed.watch.entries, +followed.watch.wanted) == ({}, {})
    followed.news(5)
    assert followed.watch.entries == {}
