"""What the deployments promise each other and the library: times that fit, known codes, secrets out of sight."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster_lock.config import load
from cluster_lock.values import Timing

COMPOSED = ("etcd", "consul", "file")
ROOM = 5.0
"""Seconds for the hand-over itself, beside the drain."""


@pytest.fixture
def deploy(checkout: Path) -> Path:
    return checkout / "deploy"


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing but the files decides; the secrets' files are where a container has them."""
    for name in ("TELEGRAM_BOT_TOKEN", "CLUSTER_LOCK_CONFIG", "CONSUL_HTTP_TOKEN", "POD_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLUSTER_LOCK_STATE_DIR", str(tmp_path))


def timing_of(deploy: Path, name: str, tmp_path: Path) -> Timing:
    """The times of a shipped bot.yaml, read as a bot reads it."""
    text = (deploy / name / "bot.yaml").read_text()
    for secret in ("telegram_token", "consul_token"):
        (tmp_path / secret).write_text("4242:a-token-for-nobody")
        text = text.replace(f"/run/secrets/{secret}", str(tmp_path / secret))
    config = tmp_path / "config.yaml"
    config.write_text(text)
    return load(config).timing


def compose_of(deploy: Path, name: str, file: str = "compose.yaml") -> dict[str, Any]:
    return dict(yaml.safe_load((deploy / name / file).read_text())["services"])


@pytest.mark.usefixtures("clean_environment")
@pytest.mark.parametrize("name", COMPOSED)
def test_containers_are_given_the_time_to_hand_over(deploy: Path, name: str, tmp_path: Path) -> None:
    """Docker kills a bot later than its drain and its hand-over can take."""
    timing = timing_of(deploy, name, tmp_path)
    for service in ("bot-1", "bot-2"):
        grace = re.fullmatch(r"(\d+)s", compose_of(deploy, name)[service]["stop_grace_period"])
        assert grace
        assert float(grace[1]) >= timing.drain + timing.cancel_grace + ROOM


def test_services_are_given_the_time_to_hand_over(deploy: Path) -> None:
    """So do systemd, Kubernetes and NSSM."""
    timing = Timing()
    least = timing.drain + timing.cancel_grace + ROOM
    unit = (deploy / "systemd/cluster-lock-bot.service").read_text()
    script = (deploy / "windows/install_service.ps1").read_text()
    pods = next(
        one for one in yaml.safe_load_all((deploy / "kubernetes/bot.yaml").read_text()) if "template" in str(one)
    )
    given = [
        re.search(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE),
        re.search(r"\$StopSeconds = (\d+)$", script, re.MULTILINE),
    ]
    times = [float(found[1]) for found in given if found]
    times.append(pods["spec"]["template"]["spec"]["terminationGracePeriodSeconds"])
    assert len(times) == 3
    assert min(times) >= least


def test_watchdog_of_systemd_waits_for_the_keepers_own(deploy: Path) -> None:
    """systemd ends the service only after the keeper had the time to end a stuck worker."""
    unit = (deploy / "systemd/cluster-lock-bot.service").read_text()
    found = re.search(r"^WatchdogSec=(\d+)$", unit, re.MULTILINE)
    assert found
    assert float(found[1]) >= 2 * Timing().stall_limit


def test_what_a_person_must_mend_is_not_restarted(deploy: Path) -> None:
    """Codes 77 and 78 leave a service down, on systemd and on Windows."""
    assert "RestartPreventExitStatus=77 78\n" in (deploy / "systemd/cluster-lock-bot.service").read_text()
    assert "foreach ($code in @(0, 77, 78))" in (deploy / "windows/install_service.ps1").read_text()


@pytest.mark.usefixtures("clean_environment")
def test_an_election_of_etcd_ends_no_term(deploy: Path, tmp_path: Path) -> None:
    """The lease outlasts an election between two renewals, and etcd grants it as it is asked for."""
    timing = timing_of(deploy, "etcd", tmp_path)
    environment = compose_of(deploy, "etcd")["etcd-1"]["environment"]
    election = float(environment["ETCD_ELECTION_TIMEOUT"]) / 1000
    assert timing.ttl - timing.margin - timing.stop_time - timing.renew_every >= 3 * election
    assert timing.ttl == int(timing.ttl) >= 1.5 * election
    assert election >= 5 * float(environment["ETCD_HEARTBEAT_INTERVAL"]) / 1000


@pytest.mark.usefixtures("clean_environment")
def test_consul_allows_the_shipped_ttl(deploy: Path, tmp_path: Path) -> None:
    """The ttl is above the servers' own floor, and outlasts a short election, of 2 s."""
    timing = timing_of(deploy, "consul", tmp_path)
    server = (deploy / "consul/server.hcl").read_text()
    floor = re.search(r'^session_ttl_min = "(\d+)s"$', server, re.MULTILINE)
    assert floor
    assert timing.ttl >= float(floor[1])
    assert "raft_multiplier = 1\n" in server
    assert timing.ttl - timing.margin - timing.stop_time - timing.renew_every >= 2


@pytest.mark.parametrize("name", COMPOSED)
def test_bots_are_confined_and_nothing_is_published(deploy: Path, name: str) -> None:
    """No service publishes a port; the bots have no capability, no writable disk and no init but docker's."""
    services = compose_of(deploy, name)
    assert not [service for service, content in services.items() if "ports" in content]
    for service in ("bot-1", "bot-2"):
        bot = services[service]
        assert (bot["read_only"], bot["cap_drop"], bot["init"]) == (True, ["ALL"], True)
        assert bot["security_opt"] == ["no-new-privileges:true"]
        assert set(bot["environment"]) - {"CLUSTER_LOCK_CONSUL__SESSION_NODE"} == {"CLUSTER_LOCK_CONFIG"}


@pytest.mark.parametrize("name", COMPOSED)
def test_images_are_the_official_ones_unless_chosen(deploy: Path, name: str) -> None:
    """Every image has a default for production and a variable, and so has the rule for pulling it."""
    for content in compose_of(deploy, name).values():
        assert re.fullmatch(r"\$\{[A-Z]+_IMAGE:-\S+\}", content["image"])
        assert content["pull_policy"] == "${PULL_POLICY:-missing}"
