"""The link of the leader's host goes down while a getUpdates is written to it, and comes back when another one leads.

What the kernel still holds then must not arrive: it would end the poll of the new leader, and confirm.
"""

from __future__ import annotations

import asyncio
import signal

import pytest
from support.diary_bot import CLOSES_GENTLY
from support.hosts import CHATS, ETCD35, TELEGRAM_PORT, HostedBot, Hosts, Scene, on

from cluster_lock import clock
from cluster_lock.aiogram.pace import AGAIN

pytestmark = pytest.mark.netns

POLLS_AFTER = AGAIN[0]
KILLED_AFTER = 0.3


@on(ETCD35)
@pytest.mark.parametrize("killed", [False, True], ids=["lives on", "is killed"])
async def test_nothing_of_it_arrives_when_the_link_is_back(hosts: Hosts, killed: bool) -> None:
    """A leader that was cut off from everything, with a getUpdates written, has lost by its deadline or is killed; when
    the link is back nothing of it arrives at Telegram, and if it lives it is a standby again."""
    async with hosts.scene() as scene:
        leader, standby = await scene.start(2)
        down = await _cut_off_while_writing(scene, leader, killed=killed)
        assert await scene.taken_over(leader) is standby
        over = leader.stopped_leading
        assert over is not None
        assert over < down + scene.timing.ttl - scene.timing.margin
        assert _unsent(hosts, leader) == 0

        hosts.network.plug(leader.host)
        await scene.telegram.thawed(leader.client)
        await scene.contend(scene.launch(leader.host) if killed else leader)
        assert standby.leads
        await scene.judge()


@on(ETCD35)
@pytest.mark.parametrize("killed", [False, True], ids=["lives on", "is killed"])
async def test_without_the_rules_for_its_connections_it_would(hosts: Hosts, killed: bool) -> None:
    """The same leader, its connections closed as usual and not reset: the getUpdates arrives when another one leads."""
    async with hosts.scene() as scene:
        leader, _ = await scene.start(2, mutant=CLOSES_GENTLY)
        await _cut_off_while_writing(scene, leader, killed=killed)
        await scene.taken_over(leader)
        assert _unsent(hosts, leader) > 0
        hosts.network.plug(leader.host)
        await scene.telegram.thawed(leader.client)

        async def arrived_late() -> bool:
            return (await scene.report()).late_arrivals > 0

        await scene.reached(arrived_late)


async def _cut_off_while_writing(scene: Scene, leader: HostedBot, *, killed: bool) -> float:
    """Take the link of the leader's host down, and see it write a getUpdates then. When it was down."""
    # While a handler is at work a getUpdates goes out several times a second, over the connection that is there.
    await scene.telegram.push(scene.bot_id, chat_id=CHATS[0], text="work 5")
    await scene.telegram.push_many(scene.bot_id, 5, chats=CHATS[1:])
    await scene.reached(lambda: leader.events("run"))

    def answered_and_not_about_to_poll() -> bool:
        last = [event for event in leader.events() if event["kind"] in ("write", "answer")][-1]
        return bool(last["kind"] == "answer" and clock.now() - last["at"] < POLLS_AFTER / 2)

    down, written_before = 0.0, True
    while written_before:
        scene.network.plug(leader.host)
        await scene.reached(answered_and_not_about_to_poll)
        last = leader.events("write")[-1]["at"]
        scene.network.unplug(leader.host)
        down = clock.now()
        # It came between the look and the cut. Then its answer is lost, and no other one follows.
        written_before = any(write["at"] < down for write in leader.events("write", since=last))
    await scene.telegram.frozen(leader.client, since=down)
    await scene.reached(lambda: leader.events("write", since=down))
    if killed:
        await asyncio.sleep(KILLED_AFTER)
        leader.child.send_signal(signal.SIGKILL)
        await asyncio.to_thread(leader.child.wait, 10)
    return down


def _unsent(hosts: Hosts, bot: HostedBot) -> int:
    """How many bytes for Telegram the kernel of the bot's host still holds, in sockets of living and dead processes."""
    held = 0
    for line in hosts.network.hosts[bot.host].run("cat", "/proc/net/tcp").splitlines()[1:]:
        fields = line.split()
        if int(fields[2].partition(":")[2], 16) == TELEGRAM_PORT:
            held += int(fields[4].partition(":")[0], 16)
    return held
