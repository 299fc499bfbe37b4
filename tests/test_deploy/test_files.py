"""What the deployments promise each other and the library: times that fit, known codes, secrets out of sight."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster_lock.config import load
from cluster_lock.values import Timing

COMPOSED = ("etcd", "consul", "file", "postgres", "redis")
FILES = [
    *((name, "compose.yaml") for name in (*COMPOSED, "try", "prometheus")),
    ("consul", "compose.agents.yaml"),
    ("try", "compose.consul.yaml"),
    ("try", "bot.yaml"),
]
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
    for secret in ("telegram_token", "consul_token", "redis_bot"):
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
    """So do systemd, Kubernetes, Nomad and NSSM."""
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
    job = re.search(r'^ *kill_timeout = "(\d+)s"$', (deploy / "nomad/bot.nomad.hcl").read_text(), re.MULTILINE)
    assert job
    times.append(float(job[1]))
    assert len(times) == 4
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


READS_KEYS_OF_OTHERS = {"DAC_READ_SEARCH"}
CAPABILITIES = {
    "owner": {"CHOWN", "FOWNER"},
    **dict.fromkeys(("etcdctl", "consul", "psql", "redis-cli", "register-node"), READS_KEYS_OF_OTHERS),
}


@pytest.mark.parametrize(("name", "file"), FILES)
def test_whatever_runs_is_limited(deploy: Path, name: str, file: str) -> None:
    """Every service, a server and a tool too, has no capability but what it needs, can gain no privilege, cannot write
    to its own file system, and has a limit of memory and of processes."""
    for service, content in compose_of(deploy, name, file).items():
        if "image" not in content:  # a part of one that stands in another file
            continue
        assert content["cap_drop"] == ["ALL"], service
        assert set(content.get("cap_add", ())) <= CAPABILITIES.get(service, set()), service
        assert content["security_opt"] == ["no-new-privileges:true"], service
        assert content["read_only"] is True, service
        assert content["mem_limit"], service
        assert content["pids_limit"], service


IMAGES = {
    "BOT_IMAGE": {"cluster-lock-bot", "mybot"},
    "ETCD_IMAGE": {"quay.io/coreos/etcd:v3.5.16"},
    "CONSUL_IMAGE": {"consul:1.8.16"},
    "POSTGRES_IMAGE": {"postgres:18.6"},
    "REDIS_IMAGE": {"redis:7.0.15"},
    "PROMETHEUS_IMAGE": {"prom/prometheus:v2.42.0"},
}
"""They are the releases that are run here, but for Consul's, which is of the same line without its hole."""


@pytest.mark.parametrize(("name", "file"), FILES)
def test_images_are_the_official_ones_unless_chosen(deploy: Path, name: str, file: str) -> None:
    """Every image has a default for production, which the tests can stand for, and a variable; and so has the rule for
    pulling it."""
    for content in compose_of(deploy, name, file).values():
        if "image" not in content:
            continue
        image = re.fullmatch(r"\$\{([A-Z]+_IMAGE):-(\S+)\}", content["image"])
        assert image
        assert image[2] in IMAGES[image[1]]
        assert content["pull_policy"] == "${PULL_POLICY:-missing}"


def test_prometheus_scrapes_each_bot_of_the_compose_files(deploy: Path) -> None:
    """Each bot is a target, at the port on which the file beside it has the bots listen beyond their loopback."""
    added = compose_of(deploy, "prometheus")
    (job,) = yaml.safe_load((deploy / "prometheus/prometheus.yml").read_text())["scrape_configs"]
    (group,) = job["static_configs"]
    for target in group["targets"]:
        host, _, port = target.partition(":")
        assert added[host]["environment"]["CLUSTER_LOCK_HEALTH"] == f"0.0.0.0:{port}"
        assert set(added[host]["networks"]) & set(added["prometheus"]["networks"])
        for name in ("try", *COMPOSED):
            assert host in compose_of(deploy, name)


def test_pods_are_replaced_when_their_configuration_changes(deploy: Path) -> None:
    """The ConfigMap cannot be changed under them, and a new one has a new name, which is a change of the Deployment."""
    objects = {one["kind"]: one for one in yaml.safe_load_all((deploy / "kubernetes/bot.yaml").read_text())}
    settings, pod = objects["ConfigMap"], objects["Deployment"]["spec"]["template"]
    assert settings["immutable"] is True
    (volume,) = [each for each in pod["spec"]["volumes"] if each["name"] == "config"]
    assert volume["configMap"]["name"] == settings["metadata"]["name"]
    (container,) = pod["spec"]["containers"]
    assert not [mount for mount in container["volumeMounts"] if "subPath" in mount]
    (mount,) = [each for each in container["volumeMounts"] if each["name"] == "config"]
    variables = {each["name"]: each.get("value") for each in container["env"]}
    assert variables["CLUSTER_LOCK_CONFIG"] == f"{mount['mountPath']}/{next(iter(settings['data']))}"


def test_pods_are_scraped_and_admit_who_scrapes(deploy: Path) -> None:
    """Annotations, PodMonitor and NetworkPolicy mean the port on which the pods serve, and pods that there are."""
    objects = {one["kind"]: one for one in yaml.safe_load_all((deploy / "kubernetes/bot.yaml").read_text())}
    monitor = yaml.safe_load((deploy / "kubernetes/podmonitor.yaml").read_text())
    pod = objects["Deployment"]["spec"]["template"]
    (port,) = pod["spec"]["containers"][0]["ports"]
    assert pod["metadata"]["annotations"]["prometheus.io/port"] == str(port["containerPort"])
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    (ingress,) = objects["NetworkPolicy"]["spec"]["ingress"]
    assert endpoint["port"] == ingress["ports"][0]["port"] == port["name"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    # A label that every namespace has by itself.
    (source,) = ingress["from"]
    assert set(source["namespaceSelector"]["matchLabels"]) == {"kubernetes.io/metadata.name"}


def test_the_unit_names_a_page_that_its_readme_installs(deploy: Path) -> None:
    """What `Documentation=` says, and `systemctl status` shows, is there after the installation as it is written."""
    unit = (deploy / "systemd/cluster-lock-bot.service").read_text()
    documentation = re.search(r"^Documentation=file://(\S+)$", unit, re.MULTILINE)
    assert documentation
    assert f"install -D -m 0644 README.md {documentation[1]}" in (deploy / "systemd/README.md").read_text()


def test_a_service_that_eats_its_memory_loses_its_worker_alone(deploy: Path) -> None:
    """The unit has limits, and goes on when the kernel ends a process for one."""
    unit = (deploy / "systemd/cluster-lock-bot.service").read_text()
    for line in (r"MemoryMax=\d+G", r"TasksMax=\d+", "OOMPolicy=continue"):
        assert re.search(f"^{line}$", unit, re.MULTILINE), line


def test_five_lines_make_an_image(deploy: Path) -> None:
    """The Dockerfile on top of the image has five lines, and the READMEs show these very ones."""
    lines = (deploy / "try/mybot/Dockerfile").read_text()
    assert len(lines.splitlines()) == 5
    for readme in ("README.md", "try/README.md"):
        shown = re.sub(r"^ +", "", (deploy / readme).read_text(), flags=re.MULTILINE)
        assert lines in shown, readme
