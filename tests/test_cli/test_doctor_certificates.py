"""What `cluster-lock doctor` says of certificates, on real servers with TLS."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from pathlib import Path

import pytest
from support.backends import Backend
from support.certs import Authority
from support.company import write_config

from cluster_lock.cli import main
from cluster_lock.cli.doctor_certificates import examine_ours
from cluster_lock.cli.findings import Severity
from cluster_lock.config import load, open_driver
from cluster_lock.health.peers import SessionPeers
from cluster_lock.session import Session
from cluster_lock.testing.servers import ConsulServer, EtcdServer, ServerTLS

HOUR, DAY = dt.timedelta(hours=1), dt.timedelta(days=1)


@pytest.mark.parametrize(
    "kind", [pytest.param("etcd", marks=pytest.mark.etcd), pytest.param("consul", marks=pytest.mark.consul)]
)
def test_which_one_ends_soon(tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    """A certificate that ends soon is a warning with what to do, whether it is ours or the server's; one that does not
    is fine."""
    authority = Authority(tmp_path)
    server = authority.issue("server", "127.0.0.1", "localhost", age=800 * DAY, left=20 * DAY)
    client = authority.issue("client", age=70 * DAY, left=20 * DAY)
    files = {"ca": str(authority.ca), "cert": str(client[0]), "key": str(client[1])}
    tls = ServerTLS(authority.ca, *server, *client)
    with EtcdServer(tls=tls) if kind == "etcd" else ConsulServer(dev=True, tls=tls) as running:
        address = running.endpoints[0] if isinstance(running, EtcdServer) else running.url
        section = {"endpoints" if kind == "etcd" else "url": address, **files}
        config = write_config(tmp_path / "c.yaml", Backend(kind, section, running), "cluster-lock/")
        assert main(["doctor", "--no-telegram", "--json", "--config", str(config)]) == 0
    checks = [each for each in json.loads(capsys.readouterr().out)["checks"] if each["check"] == "certificate"]
    ours, cert, theirs = checks
    assert (ours["outcome"], ours["text"]) == ("ok", "our ca ends in 48 h")
    assert (cert["outcome"], cert["text"]) == ("warning", "our cert ends in 20 d")
    assert (theirs["outcome"], theirs["text"]) == ("warning", f"{address} ends in 20 d")
    assert "deploy/README.md" in theirs["advice"]


@pytest.mark.parametrize(
    ("age", "left", "expected"),
    [
        (700 * DAY, 31 * DAY, Severity.OK),
        (700 * DAY, 29 * DAY, Severity.WARNING),
        (17 * HOUR, 7 * HOUR, Severity.OK),
        (19 * HOUR, 5 * HOUR, Severity.WARNING),
        (700 * DAY, -1 * DAY, Severity.WARNING),
    ],
)
def test_when_it_is_soon(tmp_path: Path, age: dt.timedelta, left: dt.timedelta, expected: Severity) -> None:
    """Soon is within 30 days, for a certificate of a short life its last quarter; and the metric has the same end."""
    authority = Authority(tmp_path)
    cert, key = authority.issue("client", age=age, left=left)
    section = {"endpoints": "https://127.0.0.1:1", "ca": str(authority.ca), "cert": str(cert), "key": str(key)}
    settings = load(write_config(tmp_path / "c.yaml", Backend("etcd", section, None), "cluster-lock/"))

    async def main() -> None:
        driver = open_driver(settings)
        await driver.open()  # asks no server
        try:
            found = {finding.text.split()[1]: finding for finding in examine_ours(driver)}
            ends = SessionPeers(Session(driver, instance="web-1", timing=settings.timing)).certificates()
        finally:
            await driver.close()
        assert found["cert"].outcome == expected
        assert ("has ended" in found["cert"].text) == (left < dt.timedelta(0))
        assert ends["cert"] == pytest.approx((dt.datetime.now(dt.UTC) + left).timestamp(), abs=60)
        assert ends.keys() == {"ca", "cert"}

    asyncio.run(main())
