"""Consul, one server or several."""

from __future__ import annotations

import json
import secrets
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .base import Cluster, Server, ServerFailed, ServerTLS, free_ports
from .tools import find_tool


class ConsulServer(Server):
    """One Consul server.

    On disk by default; `dev` keeps everything in memory and is ready in 0.1 s. `fast`: sessions of 1 s are allowed
    (freed after 2 s) and elections are quick; without it Consul's defaults (10 s at least). `tls` adds an https port,
    which `url` then names. `acl` denies by default; `management_token` may do all, `create_token()` makes lesser ones.
    """

    def __init__(
        self,
        *,
        dev: bool = False,
        fast: bool = True,
        tls: ServerTLS | None = None,
        acl: bool = False,
        datacenter: str = "dc1",
        name: str | None = None,
        host: str = "127.0.0.1",
        http_port: int | None = None,
        data_dir: Path | None = None,
        wrapper: Sequence[str] = (),
    ) -> None:
        self._program = find_tool("consul", "consul")
        super().__init__(data_dir=data_dir, wrapper=wrapper)
        ports = free_ports()
        self.name = name or f"consul-{secrets.token_hex(4)}"  # of its own: nobody else's server counts as ready
        self.host = host
        self.http_port = http_port or next(ports)
        self.https_port, self.rpc_port, self.serf_port = next(ports), next(ports), next(ports)
        self.dev = dev
        self.tls = tls
        self.management_token = str(uuid.uuid4()) if acl else None
        self.datacenter = datacenter
        self.expects = 1
        self.join: list[str] = []
        self._fast = fast
        self.title = f"consul {self.name} at {self.admin_url}"

    @property
    def url(self) -> str:
        """As in `url:` of config.yaml; https with tls."""
        return f"https://{self.host}:{self.https_port}" if self.tls else self.admin_url

    @property
    def admin_url(self) -> str:
        """Always plain http."""
        return f"http://{self.host}:{self.http_port}"

    @property
    def serf_address(self) -> str:
        return f"{self.host}:{self.serf_port}"

    def settings(self) -> dict[str, Any]:
        """The server's configuration file."""
        ports = {"http": self.http_port, "server": self.rpc_port, "serf_lan": self.serf_port}
        settings: dict[str, Any] = {
            "node_name": self.name,
            "datacenter": self.datacenter,
            "bind_addr": self.host,
            "client_addr": self.host,
            "ports": ports | {"https": self.https_port if self.tls else -1, "serf_wan": -1, "dns": -1, "grpc": -1},
            "disable_update_check": True,
            "log_level": "INFO",
        }
        if not self.dev:
            settings |= {"server": True, "bootstrap_expect": self.expects, "data_dir": str(self.data_dir / "data")}
        if self.join:
            settings |= {"retry_join": self.join, "retry_interval": "1s"}
        if self._fast:
            settings |= {"session_ttl_min": "1s", "performance": {"raft_multiplier": 1}}
        if self.tls:
            settings |= {"ca_file": str(self.tls.ca), "cert_file": str(self.tls.cert), "key_file": str(self.tls.key)}
            settings["verify_incoming_https"] = self.tls.client_cert is not None
        if self.management_token:
            tokens = {"master": self.management_token, "agent": self.management_token}
            settings["acl"] = {"enabled": True, "default_policy": "deny", "tokens": tokens}
        return settings

    def _command(self) -> list[str]:
        # A file, not arguments: it carries a token.
        path = self.data_dir / "consul.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps(self.settings(), indent=2))
        return [str(self._program), "agent", *(["-dev"] if self.dev else []), f"-config-file={path}"]

    def _is_ready(self) -> bool:
        # A leader is not enough: a session needs this node in the catalog, where the agent puts it a moment later.
        try:
            return bool(self.request("GET", f"/v1/catalog/node/{self.name}?consistent", timeout=1))
        except (OSError, ServerFailed):
            return False

    def request(
        self, method: str, path: str, body: Any = None, *, token: str | None = None, timeout: float = 10
    ) -> Any:
        """What the HTTP API answers, from JSON; with the management token if no other is given.

        A str body is sent as it is, anything else as JSON. 404 gives None, any other failure raises `ServerFailed`.
        """
        data = None if body is None else body.encode() if isinstance(body, str) else json.dumps(body).encode()
        request = urllib.request.Request(self.admin_url + path, data=data, method=method)
        token = token or self.management_token
        if token:
            request.add_header("X-Consul-Token", token)
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 404:
                    return None
                raise ServerFailed(f"{method} {path}: {error.code} {error.read().decode().strip()}") from None

    def value(self, key: str) -> bytes | None:
        """The value under a key, read consistently; None if there is none."""
        request = urllib.request.Request(f"{self.admin_url}/v1/kv/{urllib.parse.quote(key)}?raw&consistent")
        if self.management_token:
            request.add_header("X-Consul-Token", self.management_token)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 404:
                    return None
                raise

    def save_snapshot(self) -> bytes:
        """What the server holds now, as `consul snapshot save` gets it."""
        return self._snapshot("GET", None)

    def restore_snapshot(self, snapshot: bytes) -> None:
        """Put the running server back to that."""
        self._snapshot("PUT", snapshot)

    def _snapshot(self, method: str, data: bytes | None) -> bytes:
        request = urllib.request.Request(f"{self.admin_url}/v1/snapshot", data, method=method)
        if self.management_token:
            request.add_header("X-Consul-Token", self.management_token)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return bytes(answer.read())

    def create_token(self, rules: str) -> str:
        """A token with a policy of these rules (HCL), as in deploy/consul."""
        name = f"test-{secrets.token_hex(4)}"
        self.request("PUT", "/v1/acl/policy", {"Name": name, "Rules": rules})
        made = self.request("PUT", "/v1/acl/token", {"Policies": [{"Name": name}]})
        return str(made["SecretID"])

    @property
    def is_leader(self) -> bool:
        try:
            return bool(self.request("GET", "/v1/status/leader", timeout=1) == f"{self.host}:{self.rpc_port}")
        except (OSError, ServerFailed):
            return False


class ConsulCluster(Cluster[ConsulServer]):
    """`size` servers on loopback, each with ports of its own."""

    def __init__(self, size: int = 3, *, fast: bool = True, tls: ServerTLS | None = None, acl: bool = False) -> None:
        nodes = [ConsulServer(fast=fast, tls=tls, acl=acl) for _ in range(size)]
        for node in nodes:
            node.expects = size
            node.join = [each.serf_address for each in nodes]
            node.management_token = nodes[0].management_token
        super().__init__(nodes)

    @property
    def urls(self) -> list[str]:
        return [node.url for node in self.nodes]

    def leads(self, node: ConsulServer) -> bool:
        return node.is_leader
