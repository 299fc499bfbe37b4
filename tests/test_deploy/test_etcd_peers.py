"""Who comes in at the port of etcd's peers may do everything there, so no client's certificate opens it."""

from __future__ import annotations

import http.client
import json
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster_lock.testing.servers.base import Server, free_ports
from cluster_lock.testing.servers.tools import find_tool

pytestmark = [pytest.mark.etcd, pytest.mark.slow]

REFUSED = (ssl.SSLError, ConnectionError)
"""etcd closes the connection, with or without a word."""


class ShippedEtcd(Server):
    """etcd-1 of deploy/etcd/compose.yaml, alone, on loopback: with its own variables and certificates of make-certs."""

    title = "etcd-1 as shipped"

    def __init__(self, deploy: Path, certs: Path, data_dir: Path) -> None:
        super().__init__(data_dir=data_dir)
        service: dict[str, Any] = yaml.safe_load((deploy / "etcd/compose.yaml").read_text())["services"]["etcd-1"]
        text = json.dumps(service["environment"])
        for volume in service["volumes"]:
            if volume.startswith("${CERTS:-./certs}/"):
                file, inside, _ = volume.removeprefix("${CERTS:-./certs}/").split(":")
                text = text.replace(inside, str(certs / file))
        ports = free_ports()
        self.port, self.peer_port = next(ports), next(ports)
        client, peer = f"https://127.0.0.1:{self.port}", f"https://127.0.0.1:{self.peer_port}"
        self._environment = json.loads(text) | {
            "ETCD_NAME": "etcd-1",
            "ETCD_DATA_DIR": str(data_dir / "data"),
            "ETCD_INITIAL_CLUSTER": f"etcd-1={peer}",
            "ETCD_INITIAL_CLUSTER_STATE": "new",
            "ETCD_INITIAL_ADVERTISE_PEER_URLS": peer,
            "ETCD_LISTEN_PEER_URLS": peer,
            "ETCD_ADVERTISE_CLIENT_URLS": client,
            "ETCD_LISTEN_CLIENT_URLS": client,
        }
        self._certs = certs

    def _command(self) -> list[str]:
        variables = [f"{name}={value}" for name, value in self._environment.items() if name.startswith("ETCD_")]
        return ["/usr/bin/env", *variables, str(find_tool("etcd", "etcd", "3.5"))]

    def _is_ready(self) -> bool:
        try:
            return self.asked(self.port, "bot", "/health") == 200
        except OSError:
            return False

    def asked(self, port: int, name: str, path: str) -> int:
        """The status of the answer to who shows the certificate `name`; OSError if that is not let in."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # who is in question is the client
        context.load_cert_chain(self._certs / f"{name}.crt", self._certs / f"{name}.key")
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=5, context=context)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        finally:
            connection.close()


def test_no_clients_certificate_opens_the_peers_port(checkout: Path, tmp_path: Path) -> None:
    """With the certificate of a bot, of the operator or of a server for its clients nobody is a peer; each is let in at
    the port for clients, and there a peer's is not."""
    certs = tmp_path / "certs"
    subprocess.run([checkout / "deploy/make-certs", certs, "etcd"], check=True, capture_output=True, timeout=300)
    with ShippedEtcd(checkout / "deploy", certs, tmp_path / "etcd") as etcd:
        assert etcd.asked(etcd.peer_port, "etcd-2.peer", "/members") == 200
        for name in ("bot", "operator", "etcd-2"):
            assert etcd.asked(etcd.port, name, "/version") == 200
            with pytest.raises(REFUSED):
                etcd.asked(etcd.peer_port, name, "/members")
        with pytest.raises(REFUSED):
            etcd.asked(etcd.port, "etcd-2.peer", "/version")
