"""etcd 3.4 or 3.5, one node or several."""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from .base import Cluster, Server, ServerFailed, ServerTLS, free_ports
from .tools import find_tool


class EtcdServer(Server):
    """One etcd node.

    `release` is "3.4" or "3.5" (None: whichever is installed). `fast`: heartbeat 20 ms, election 200 ms, so that a ttl
    of 1 s is granted; without it etcd's defaults, which raise 1 s to 2 s. `tls` makes it speak https only. `auth` sets
    up, at the first start, a root user and the user `username`/`password` whose role may read and write `prefix` alone.
    `quota`: bytes after which it takes no more writes.
    """

    username = "locker"

    def __init__(
        self,
        *,
        release: str | None = None,
        fast: bool = True,
        tls: ServerTLS | None = None,
        auth: bool = False,
        prefix: str = "cluster-lock/",
        auth_token_ttl: int | None = None,
        quota: int | None = None,
        name: str = "etcd",
        host: str = "127.0.0.1",
        client_port: int | None = None,
        peer_port: int | None = None,
        data_dir: Path | None = None,
        wrapper: Sequence[str] = (),
    ) -> None:
        self._program = find_tool("etcd", "etcd", release)
        self._ctl = find_tool("etcd", "etcdctl", release)
        super().__init__(data_dir=data_dir, wrapper=wrapper)
        ports = free_ports()
        self.name = name
        self.host = host
        self.client_port = client_port or next(ports)
        self.peer_port = peer_port or next(ports)
        self._metrics_port = next(ports)
        self.tls = tls
        self.auth = auth
        self.prefix = prefix
        self.password = secrets.token_hex(8)
        self.root_password = secrets.token_hex(8)
        self._auth_is_set_up = False
        self._fast = fast
        self._auth_token_ttl = auth_token_ttl
        self._quota = quota
        self.members = {name: self.peer_url}
        self.title = f"etcd {release or ''} at {self.endpoint}".replace("  ", " ")

    @property
    def endpoint(self) -> str:
        """As in `endpoints:` of config.yaml: `http://127.0.0.1:PORT`, https with tls."""
        return f"{'https' if self.tls else 'http'}://{self.host}:{self.client_port}"

    @property
    def endpoints(self) -> list[str]:
        return [self.endpoint]

    @property
    def peer_url(self) -> str:
        return f"http://{self.host}:{self.peer_port}"

    def _command(self) -> list[str]:
        command = [
            str(self._program),
            f"--name={self.name}",
            f"--data-dir={self.data_dir / 'data'}",
            f"--listen-client-urls={self.endpoint}",
            f"--advertise-client-urls={self.endpoint}",
            f"--listen-peer-urls={self.peer_url}",
            f"--initial-advertise-peer-urls={self.peer_url}",
            f"--initial-cluster={self._cluster}",
            # A plain port of its own: health and role can be asked whatever TLS and auth say.
            f"--listen-metrics-urls=http://{self.host}:{self._metrics_port}",
            "--logger=zap",
        ]
        if self._fast:
            command += ["--heartbeat-interval=20", "--election-timeout=200"]
        if self._quota is not None:
            command.append(f"--quota-backend-bytes={self._quota}")
        if self._auth_token_ttl is not None:
            command.append(f"--auth-token-ttl={self._auth_token_ttl}")
        if self.tls:
            command += [f"--cert-file={self.tls.cert}", f"--key-file={self.tls.key}"]
            if self.tls.client_cert:
                command += ["--client-cert-auth", f"--trusted-ca-file={self.tls.ca}"]
        return command

    def _is_ready(self) -> bool:
        try:
            return bool(json.loads(self._ask("/health?exclude=NOSPACE")).get("health") == "true")
        except (OSError, ValueError):  # no JSON: another server on that port, and this one is about to end
            return False

    def _became_ready(self) -> None:
        if self.auth and not self._auth_is_set_up:
            self.set_up_auth()
            self._auth_is_set_up = True

    def set_up_auth(self) -> None:
        """Create the users and the role, then demand them; of a cluster, call it on one node."""
        self.ctl("user", "add", "root", "--interactive=false", stdin=self.root_password, user=None)
        self.ctl("user", "grant-role", "root", "root", user=None)
        self.ctl("role", "add", "lock", user=None)
        self.ctl("role", "grant-permission", "lock", "readwrite", self.prefix, "--prefix", user=None)
        self.ctl("user", "add", self.username, "--interactive=false", stdin=self.password, user=None)
        self.ctl("user", "grant-role", self.username, "lock", user=None)
        self.ctl("auth", "enable", user=None)

    def ctl(self, *arguments: str, stdin: str | None = None, user: str | None = "root") -> str:
        """What `etcdctl ARGUMENTS` prints; as root where auth is on. Raises `ServerFailed` with its complaint."""
        environment = {"ETCDCTL_API": "3", "ETCDCTL_ENDPOINTS": self.endpoint}
        if self.tls:
            environment["ETCDCTL_CACERT"] = str(self.tls.ca)
            if self.tls.client_cert and self.tls.client_key:
                environment |= {"ETCDCTL_CERT": str(self.tls.client_cert), "ETCDCTL_KEY": str(self.tls.client_key)}
        if self.auth and user == "root":
            environment["ETCDCTL_USER"] = f"root:{self.root_password}"
        answer = subprocess.run(
            [str(self._ctl), *arguments],
            input=stdin,
            env=environment,
            capture_output=True,
            text=True,
            timeout=15,
            check=False,
        )
        if answer.returncode != 0:
            raise ServerFailed(f"etcdctl {' '.join(arguments)}: {answer.stderr.strip() or answer.stdout.strip()}")
        return answer.stdout

    def save_snapshot(self) -> bytes:
        """What the server holds now, as `etcdctl snapshot save` gets it."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "snapshot.db"
            self.ctl("snapshot", "save", str(path), user=None)
            return path.read_bytes()

    def restore_snapshot(self, snapshot: bytes, *, bump: int = 0) -> None:
        """Kill the server, put its data back to that, and start it again. `bump`: let revisions go on so much higher,
        and take all older ones for compacted (from 3.5.11 on)."""
        self.put_back(snapshot, bump=bump)
        self.start()

    def put_back(self, snapshot: bytes, *, bump: int = 0) -> None:
        """The same without the start: of several nodes all are put back, and then started."""
        self.kill()
        data = self.data_dir / "data"
        shutil.rmtree(data)
        # 3.5 and later have a tool of its own for it.
        tool = self._ctl.with_name("etcdutl")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "snapshot.db"
            path.write_bytes(snapshot)
            command = [str(tool if tool.exists() else self._ctl), "snapshot", "restore", str(path)]
            command += [f"--data-dir={data}", f"--name={self.name}", f"--initial-cluster={self._cluster}"]
            command += [f"--initial-advertise-peer-urls={self.peer_url}"]
            command += [f"--bump-revision={bump}", "--mark-compacted"] if bump else []
            done = subprocess.run(command, env={"ETCDCTL_API": "3"}, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ServerFailed(f"etcd's snapshot was not restored: {done.stderr.strip()}")

    @property
    def is_leader(self) -> bool:
        try:
            return "etcd_server_is_leader 1" in self._ask("/metrics")
        except OSError:
            return False

    def metric(self, name: str) -> float:
        """One number of the server's /metrics, such as `etcd_debugging_mvcc_watcher_total`."""
        for line in self._ask("/metrics").splitlines():
            if line.startswith(name + " "):
                return float(line.split()[1])
        raise ServerFailed(f"{self} has no metric {name}")

    def take_no_writes(self) -> None:
        """The alarm of a quota that is used up, until `etcdctl alarm disarm`."""
        body = json.dumps({"action": "ACTIVATE", "alarm": "NOSPACE"}).encode()
        with urllib.request.urlopen(f"{self.endpoint}/v3/maintenance/alarm", body, timeout=10):
            pass

    @property
    def _cluster(self) -> str:
        return ",".join(f"{name}={url}" for name, url in self.members.items())

    def _ask(self, path: str) -> str:
        try:
            with urllib.request.urlopen(f"http://{self.host}:{self._metrics_port}{path}", timeout=1) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:  # /health answers 503 with a body like any other
            with error:
                return error.read().decode()


class EtcdCluster(Cluster[EtcdServer]):
    """`size` nodes on loopback; `auth` as for one server."""

    def __init__(
        self,
        size: int = 3,
        *,
        release: str | None = None,
        fast: bool = True,
        tls: ServerTLS | None = None,
        auth: bool = False,
    ) -> None:
        nodes = [EtcdServer(release=release, fast=fast, tls=tls, name=f"etcd{index}") for index in range(size)]
        for node in nodes:
            node.members = {each.name: each.peer_url for each in nodes}
        super().__init__(nodes)
        self._auth = auth

    def start(self, *, ready_within: float = 30.0) -> EtcdCluster:
        super().start(ready_within=ready_within)
        if self._auth and not self.nodes[0].auth:
            first = self.nodes[0]
            first.set_up_auth()
            for node in self.nodes:
                node.auth, node.password, node.root_password = True, first.password, first.root_password
                node._auth_is_set_up = True
        return self

    @property
    def endpoints(self) -> list[str]:
        return [node.endpoint for node in self.nodes]

    def leads(self, node: EtcdServer) -> bool:
        return node.is_leader
