"""deploy/etcd and deploy/consul as they are shipped: who leads, and what becomes of it when something fails.

Each fault begins with one leader and one standby under traffic and ends with a verdict of the simulated Telegram: at no
moment two live polls, no update lost.
"""

from __future__ import annotations

import json

import pytest
from support.aio import run
from support.deployment import BOTS, DeployedBots, Deployment
from support.watched import Process

from cluster_lock import clock

pytestmark = pytest.mark.docker

TRUSTED = {"etcd": 3.5, "consul": 4.5}
"""ttl - margin of the shipped bot.yaml: a leader that cannot renew has stopped by then."""
FREED = {"etcd": 5.0, "consul": 12.0}
"""When the backend has freed the lock of a leader that is silent: ttl, and twice that."""
RENEWED = 2.0
"""`renew_every` of the shipped bot.yaml on Consul."""
SLACK = 3.0
"""For a machine that is busy: how much later than it must be something may be seen."""


MOSTLY_ETCD = pytest.mark.parametrize(
    "deployment", ["etcd", pytest.param("consul", marks=pytest.mark.slow)], indirect=True, scope="session"
)
"""A restart of a bot is seconds of a processor: what is much the same on Consul is left to the long run."""


def other(leader: Process) -> str:
    return next(service for service in BOTS if service != leader.service)


async def back(watched: DeployedBots, service: str) -> None:
    """Start what a fault ended, if docker has not done so itself."""
    await watched.compose("up", "--detach", "--no-deps", service)
    await watched.settled()


async def test_election(deployment: Deployment) -> None:
    """Of the two bots one leads and polls, and the backend's own tool shows who, where and since when."""
    async with deployment.watched() as watched:
        leader = await watched.settled()
        key = "cluster-lock/leader/telegram/4242"
        tool = ["etcdctl", "get", "--print-value-only"] if deployment.backend == "etcd" else ["consul", "kv", "get"]
        record = json.loads(await watched.compose("run", "--rm", "-T", "--no-deps", *tool, key))
        assert (record["instance"], record["host"]) == (leader.service, leader.service)
        assert record["since"].endswith("Z")


@MOSTLY_ETCD
async def test_both_bots_are_healthy(deployment: Deployment) -> None:
    """Docker's health check passes for the leader and for the standby, which asks /readyz."""
    async with deployment.watched() as watched:
        await watched.settled()
        await watched.compose("up", "--detach", "--no-deps", "--wait", *BOTS)
        assert {deployment.state(service)["Health"]["Status"] for service in BOTS} == {"healthy"}


@MOSTLY_ETCD
def test_secrets_are_in_no_argument_and_no_variable(deployment: Deployment) -> None:
    """What docker shows of a bot's container to everybody who may ask it has no token and no key in it."""
    secrets = [path.read_text().strip() for path in (deployment.folder / "secrets").iterdir()]
    assert secrets
    for service in BOTS:
        shown = deployment.docker.run("docker", "inspect", deployment.container(service))
        shown += deployment.docker.run("docker", "top", deployment.container(service), "-eo", "pid,args")
        shown += deployment.compose("logs", service)
        # Of the bot's token the part before the colon is public.
        assert not [secret for secret in secrets if (secret.partition(":")[2] or secret) in shown]


@MOSTLY_ETCD
async def test_rolling_update_with_traffic(deployment: Deployment) -> None:
    """The runbook's update, first the standby and then the leader, hands over: nothing is lost or handled twice."""
    async with deployment.watched() as watched:
        leader = await watched.settled()
        await watched.traffic(50)
        before = (await watched.telegram.report(drained=False)).duplicated
        for service in (other(leader), leader.service):
            old = watched.latest(service)
            began = clock.now()
            await watched.compose("up", "--detach", "--no-deps", "--force-recreate", service)
            if service == leader.service:
                print(f"\n{deployment.backend}: handed over in {await watched.taken_over(leader, began):.2f} s")
            await watched.restarted(old)
            await watched.settled()
        report = await watched.judge()
        assert report.duplicated == before


@MOSTLY_ETCD
async def test_bot_is_killed(deployment: Deployment) -> None:
    """`docker kill` of the leader: the standby leads as soon as the backend has freed the lock."""
    async with deployment.watched() as watched:
        leader = await watched.settled()
        await watched.traffic()
        began = clock.now()
        await watched.compose("kill", leader.service)
        watched.died(leader)
        seconds = await watched.taken_over(leader, began)
        print(f"\n{deployment.backend}: taken over {seconds:.2f} s after docker kill")
        assert seconds <= FREED[deployment.backend] + SLACK
        await watched.judge()
        await back(watched, leader.service)


@MOSTLY_ETCD
async def test_bot_is_paused(deployment: Deployment) -> None:
    """`docker pause` of the leader beyond its lease: the standby leads, and what wakes does nothing any more."""
    async with deployment.watched() as watched:
        leader = await watched.settled()
        await watched.traffic()
        began = await watched.pause(leader.service)
        try:
            await watched.telegram.frozen(leader.client, since=began)
            seconds = await watched.taken_over(leader, began)
            await watched.telegram.thawed(leader.client)
        finally:
            await watched.compose("unpause", leader.service)
        print(f"\n{deployment.backend}: taken over {seconds:.2f} s after docker pause")
        assert seconds <= FREED[deployment.backend] + SLACK
        await watched.settled()
        await watched.judge()


@MOSTLY_ETCD
async def test_bot_is_cut_off_from_the_store(deployment: Deployment) -> None:
    """The leader loses its way to the store and keeps the one to Telegram: it stops before the standby leads."""
    async with deployment.watched() as watched:
        leader = await watched.settled()
        await watched.traffic()
        network, container = f"{deployment.project}_store", deployment.container(leader.service)
        began = clock.now()
        await watched.docker("network", "disconnect", network, container)
        seconds = await watched.taken_over(leader, began)
        print(f"\n{deployment.backend}: taken over {seconds:.2f} s after the network was cut")
        assert seconds <= FREED[deployment.backend] + SLACK
        await watched.docker("network", "connect", network, container)
        await watched.settled()
        await watched.judge()


async def test_leader_of_the_store_is_lost(deployment: Deployment) -> None:
    """The store's leading server is killed and stays away: when its election is over somebody leads, on a lease
    that was renewed since; whether the old term outlasts the election depends on how busy the machine is."""
    async with deployment.watched() as watched:
        await watched.settled()
        await watched.traffic()
        server = await store_leader(watched)
        await watched.compose("kill", server)
        await watched.somebody_polls_after(TRUSTED[deployment.backend])
        await watched.compose("up", "--detach", "--wait", "--no-deps", server)
        await watched.settled()
        await watched.judge()


async def store_leader(watched: DeployedBots) -> str:
    """The service that leads among the servers of the store."""
    servers = watched.deployment.servers
    if watched.deployment.backend == "etcd":
        said = await watched.compose("run", "--rm", "-T", "--no-deps", "etcdctl", "endpoint", "status", "-w", "json")
        # Warnings, if any, are lines before it.
        status = json.loads(said[said.index("[{") :])
        leads = next(one for one in status if one["Status"]["leader"] == one["Status"]["header"]["member_id"])
        return next(server for server in servers if f"//{server}:" in leads["Endpoint"])
    peers = await watched.compose("run", "--rm", "-T", "--no-deps", "consul", "operator", "raft", "list-peers")
    return next(line.split()[0] for line in peers.splitlines() if " leader " in line)


# -- Consul with a client agent beside each bot ------------------------------------------------------------------------


@pytest.mark.parametrize("deployment", ["consul"], indirect=True)
@pytest.mark.parametrize(
    "session_node", ["", "cluster-lock"], ids=["sessions on the agent", "sessions on session_node"]
)
def test_client_agent_leaves(deployment: Deployment, session_node: str) -> None:
    """A client agent that leaves under the leader takes the term along at once, without an overlap; with `session_node`
    the leader asks the next agent and leads on."""

    async def main() -> None:
        async with deployment.watched() as watched:
            deployment.variables["SESSION_NODE"] = session_node
            old = [watched.latest(service) for service in BOTS]
            await watched.compose("up", "--detach", "--wait", "agent-1", "agent-2", *BOTS)
            for process in old:
                await watched.restarted(process)
            leader = await watched.settled()
            await watched.traffic()
            agent = leader.service.replace("bot", "agent")
            began = clock.now()
            # SIGTERM: a client agent leaves the cluster.
            await watched.compose("stop", agent)
            if session_node:
                await watched.keeps_leading(leader, TRUSTED["consul"] + RENEWED)
            else:
                print(f"\nconsul: taken over {await watched.taken_over(leader, began):.2f} s after the agent was told")
            await watched.compose("up", "--detach", "--wait", "--no-deps", agent)
            await watched.settled()
            await watched.judge()

    agents = deployment.home / "compose.agents.yaml"
    if agents not in deployment.files:
        deployment.files.insert(1, agents)
        deployment.docker.run(
            str(deployment.home.parent / "make-certs"), str(deployment.folder / "certs"), "consul-agent"
        )
    if not session_node:  # then its sessions are on nodes that its shipped policy does not open
        rules = deployment.folder / "diaries" / "sessions.hcl"
        rules.write_text(deployment.policy("bot.policy.hcl") + 'session_prefix "" { policy = "write" }')
        tool = ["run", "--rm", "-T", "--no-deps", "--volume", f"{rules}:/rules.hcl:ro", "consul", "acl", "policy"]
        deployment.compose(*tool, "update", "-name", f"cluster-lock-bot-{deployment.bot_id}", "-rules", "@/rules.hcl")
    run(main())
