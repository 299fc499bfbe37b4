"""The pipe between keeper and worker: what is asked is answered, and what is not understood ends it."""

from __future__ import annotations

import asyncio

import pytest

from cluster_lock.errors import BackendUnavailable, ClusterLockError, LockLost
from cluster_lock.keeper.link import LinkClosed, PipeLink


def pair() -> tuple[PipeLink, PipeLink]:
    """Two ends; what one sends the other one gets in the next step of the loop."""
    ends: list[PipeLink] = []

    def sender(number: int) -> PipeLink:
        def send(line: bytes) -> None:
            asyncio.get_running_loop().call_soon(ends[number].received, line.rstrip())

        return PipeLink(send)

    ends += [sender(1), sender(0)]
    return ends[0], ends[1]


async def test_an_answer_comes_back() -> None:
    """A question is answered by the handler of its verb, with what it was given."""
    here, there = pair()

    async def double(number: int) -> int:
        return 2 * number

    there.verbs["double"] = double
    assert await asyncio.gather(*(here.call("double", number=number) for number in range(5))) == [0, 2, 4, 6, 8]


async def test_an_error_is_the_same_at_both_ends() -> None:
    """What a handler raises of ours is raised for the caller, by its own class."""
    here, there = pair()

    async def lost() -> None:
        raise LockLost("x: the key was deleted")

    there.verbs["lost"] = lost
    with pytest.raises(LockLost, match="the key was deleted"):
        await here.call("lost")


async def test_a_bug_is_an_error_too() -> None:
    """Anybody who asks is told when the handler fails in a way that nobody foresaw."""
    here, there = pair()

    async def broken() -> None:
        raise RuntimeError("bug")

    there.verbs["broken"] = broken
    with pytest.raises(ClusterLockError, match="bug"):
        await here.call("broken")


async def test_a_cancelled_question_is_cancelled_there() -> None:
    """Anybody who goes away from a question cancels what works on the answer."""
    here, there = pair()
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    there.verbs["wait"] = wait
    asking = asyncio.create_task(here.call("wait"))
    await begun.wait()
    asking.cancel()
    await cancelled.wait()
    await there.ended()


async def test_the_end_of_the_link_ends_what_waits() -> None:
    """When the other process is gone the one that waits is told, what was asked here is cancelled, and nobody asks
    anew."""
    here, there = pair()
    begun = asyncio.Event()

    async def wait() -> None:
        begun.set()
        await asyncio.Event().wait()

    there.verbs["wait"] = wait
    asking = asyncio.create_task(here.call("wait"))
    await begun.wait()
    here.close("it is gone")
    there.close("it is gone")
    await there.ended()
    with pytest.raises(LinkClosed, match="it is gone"):
        await asking
    with pytest.raises(BackendUnavailable):
        await here.call("wait")


@pytest.mark.parametrize(
    "line",
    [b"no json", b"[]", b"{}", b'{"call": 1}', b'{"call": 1, "verb": "unknown", "with": {}}', b'{"cancel": []}', b"1"],
)
async def test_what_is_not_understood_closes_it(line: bytes) -> None:
    """A line of another version, or of nobody, closes the link and raises nothing."""
    here, _ = pair()
    here.received(line)
    assert here.closed is not None


async def test_errors_of_no_class_of_ours() -> None:
    """An error whose class is not known here is an error of the library all the same."""
    here, _ = pair()
    asking = asyncio.create_task(here.call("x"))
    await asyncio.sleep(0)
    here.received(b'{"answer": 1, "error": ["SomethingNew", "what"]}')
    with pytest.raises(ClusterLockError, match="what"):
        await asking
