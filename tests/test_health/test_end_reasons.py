"""Why a term ended is counted by where the reason arose, whatever its sentence says."""

from __future__ import annotations

import asyncio
import copy
import pickle
import socket
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
from support.health import LOCK, leader_board, own_time
from support.sessions import key_of, session

from cluster_lock.drivers.memory import MemoryBackend, MemoryDriver
from cluster_lock.election import Election, Term
from cluster_lock.errors import LeaseExpired
from cluster_lock.health import Board
from cluster_lock.lease.guard import NoGuard
from cluster_lock.observer import Ending
from cluster_lock.session import Session
from cluster_lock.session.requests import Ask
from cluster_lock.testing.faulty import FaultyDriver, refuse
from cluster_lock.values import REQUEST, EndCode, EndReason, Origin


class Scene:
    """One leader of the lock x, and what is told of it."""

    def __init__(self, election: Election, session: Session, store: MemoryBackend, board: Board) -> None:
        self.election, self.session, self.store, self.board = election, session, store, board
        self.driver = FaultyDriver(MemoryDriver(store))
        self.before = store.save()
        """The store without the lock."""
        self.done = asyncio.Event()
        """Set: the work returns by itself."""

    @property
    def term(self) -> Term:
        term = self.election.term("x")
        assert term is not None
        return term

    async def work(self, term: Term) -> None:
        ends = [asyncio.ensure_future(each) for each in (term.wait_step_down(), self.done.wait())]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in ends:
                end.cancel()

    async def until(self, leads: bool) -> None:
        async with asyncio.timeout(60):
            while ("x" in self.board.locks and self.board.locks["x"].leads) is not leads:
                await self.board.changed.wait()

    def counted(self) -> list[str]:
        return [reason for to, reason in self.board.locks["x"].transitions if to == "standby"]


async def ask(scene: Scene, by: str) -> None:
    """A person asks for a step-down, over the backend; the only way for it to be heeded is an heir."""
    async with session(scene.store, "heir") as heir:
        election = Election(heir)
        leading = asyncio.create_task(election.lead("x", scene.work))
        await asyncio.sleep(1)
        lease = await heir.lease()
        await heir.driver.announce(lease, REQUEST + "x", Ask(scene.term.fencing_token, "1", by).to_bytes())
        await scene.until(False)
        election.stop()
        await leading


async def stop(scene: Scene) -> None:
    scene.election.stop("SIGTERM")


async def stop_in_other_words(scene: Scene) -> None:
    scene.election.stop("maintenance of the worker hosts")


async def step_down(scene: Scene) -> None:
    scene.term.step_down("the worker hosts are updated, bot by bot")


async def asked_by_a_worker(scene: Scene) -> None:
    await ask(scene, "worker@ops-1")


async def asked_by_stop(scene: Scene) -> None:
    await ask(scene, "stop@ops-1")


async def return_from_work(scene: Scene) -> None:
    scene.done.set()


async def delete_key(scene: Scene) -> None:
    scene.store.stranger_deletes(key_of("x"))


async def end_lease(scene: Scene) -> None:
    scene.driver.next("renew", refuse(LeaseExpired("no such lease")))


async def cut_off(scene: Scene) -> None:
    scene.driver.down()


async def set_back(scene: Scene) -> None:
    scene.store.restore(scene.before)


async def close(scene: Scene) -> None:
    await scene.session.__aexit__(None, None, None)


@pytest.mark.virtual
@pytest.mark.parametrize(
    ("cause", "code"),
    [
        (stop, EndCode.STOPPED),
        (stop_in_other_words, EndCode.STOPPED),
        (step_down, EndCode.STEP_DOWN),
        (asked_by_a_worker, EndCode.STEP_DOWN),
        (asked_by_stop, EndCode.STEP_DOWN),
        (return_from_work, EndCode.WORK_DONE),
        (delete_key, EndCode.KEY_GONE),
        (end_lease, EndCode.LEASE_GONE),
        (set_back, EndCode.STORE_SET_BACK),
        (cut_off, EndCode.NOT_RENEWED),
        (close, EndCode.SESSION_ENDED),
    ],
)
async def test_an_end_is_counted_by_its_cause(cause: Callable[[Scene], Awaitable[None]], code: EndCode) -> None:
    """What a person, a program or the backend did is what is counted; no word of a sentence, which may hold any name,
    changes that."""
    store, board = MemoryBackend(), Board("a")
    driver = FaultyDriver(MemoryDriver(store))
    async with session(store, "a", driver=driver, observer=board) as ours:
        await ours.lease()
        scene = Scene(Election(ours), ours, store, board)
        scene.driver = driver
        leading = asyncio.create_task(scene.election.lead("x", scene.work))
        await scene.until(True)
        await cause(scene)
        await scene.until(False)
        assert scene.counted() == [code]
        driver.up()
        leading.cancel()
        await asyncio.wait([leading])
        assert leading.cancelled() or leading.exception() is None or cause is close


@pytest.mark.skipif(sys.platform == "win32", reason="a keeper needs POSIX")
async def test_the_code_comes_through_the_pipe() -> None:
    """The keeper counts the ends of a worker's terms by their codes: those that it told the worker, and those that it
    is told."""
    from cluster_lock.keeper.link import PipeLink
    from cluster_lock.keeper.relay import Relay
    from cluster_lock.keeper.telling import Telling, told
    from cluster_lock.keeper.worker import PipeLockSource

    store, board = MemoryBackend(), Board("a", worker=True)
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    loop = asyncio.get_running_loop()

    def read() -> None:
        for line in theirs.recv(65536).splitlines():
            keeper.received(line)

    async with AsyncExitStack() as stack:
        held = await stack.enter_async_context(session(store, "a", observer=board))
        stack.enter_context(ours)
        stack.enter_context(theirs)
        keeper = PipeLink(lambda line: theirs.sendall(line))
        keeper.events["observed"] = lambda what, arguments: told(board, what, arguments)
        relay = Relay(held, keeper, asked=lambda: None, overdue=lambda name: None)
        loop.add_reader(theirs, read)
        stack.callback(loop.remove_reader, theirs)
        contest = await stack.enter_async_context(PipeLockSource(ours, held.timing, guard=NoGuard()))
        scene = Scene(Election(contest, observer=Telling(contest.link)), held, store, board)
        contest.link.events["stop"] = lambda reason: scene.election.stop(EndReason.from_json(reason))
        leading = asyncio.create_task(scene.election.lead("x", scene.work, settle=False))
        await scene.until(True)
        await step_down(scene)
        await scene.until(False)
        await scene.until(True)
        await delete_key(scene)
        await scene.until(False)
        await scene.until(True)
        keeper.tell("stop", reason=EndReason("SIGTERM", EndCode.STOPPED).to_json())
        await leading
        await scene.until(False)
        assert scene.counted() == [EndCode.STEP_DOWN, EndCode.KEY_GONE, EndCode.STOPPED]
        await relay.give_back()


@pytest.mark.parametrize("how", [Ending.RELEASED, Ending.HANDED_OVER, Ending.UNCONFIRMED])
def test_a_term_that_was_lost_on_its_way_out_is_a_loss(how: Ending) -> None:
    """A lock that was lost while its term was stepping down was lost; why it stepped down does not count."""
    with own_time():
        board = leader_board()
        board.term_ended(LOCK, EndReason("stepped down: SIGTERM", EndCode.STOPPED), Ending.LOST)
        board.term_began(LOCK, 18, Origin.FOUND_FREE)
        board.term_ended(LOCK, EndReason("stepped down: SIGTERM", EndCode.STOPPED), how)
        ended = {reason: count for (to, reason), count in board.locks[LOCK].transitions.items() if to == "standby"}
        assert ended == {EndCode.LOST: 1, EndCode.STOPPED: 1}


def test_a_reason_is_a_sentence_with_a_code() -> None:
    """It is the sentence wherever a text is wanted, keeps its code in copies and on its way to another process, and a
    plain text becomes one."""
    reason = EndReason("the key of x was deleted", EndCode.KEY_GONE)
    assert reason == "the key of x was deleted"
    assert f"{reason}" == str(reason) == "the key of x was deleted"
    for copied in (copy.deepcopy(reason), pickle.loads(pickle.dumps(reason)), EndReason.from_json(reason.to_json())):
        assert (copied, copied.code) == (reason, EndCode.KEY_GONE)
    assert EndReason.of(reason, EndCode.STOPPED) is reason
    assert EndReason.of("enough", EndCode.STOPPED).code is EndCode.STOPPED
    assert {code for code in EndCode if code.is_loss} == {code for code in EndCode if code.startswith("lost_")}
