"""PgBouncer before a PostgreSQL server."""

from __future__ import annotations

from .base import Server, free_ports
from .postgres import IS_ROOT, OWNER, PostgresServer
from .tools import find_tool


class PgBouncer(Server):
    """PgBouncer before a server, in `mode` "session" or "transaction"; who comes is believed."""

    def __init__(self, server: PostgresServer, mode: str, *, pool_size: int = 20, user: str = "nobody") -> None:
        self._program = find_tool("postgres", "pgbouncer")
        super().__init__()
        self._server = server
        self._user = user
        self.port = next(free_ports())
        self.title = f"pgbouncer at 127.0.0.1:{self.port}"
        users = self.data_dir / "users.txt"
        users.write_text(f'"{OWNER}" ""\n')
        (self.data_dir / "pgbouncer.ini").write_text(
            "[databases]\n"
            f"postgres = host={server.host} port={server.port} dbname=postgres\n"
            "[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\n"
            f"auth_type = trust\nauth_file = {users}\npool_mode = {mode}\ndefault_pool_size = {pool_size}\n"
        )
        self.data_dir.chmod(0o755)

    @property
    def dsn(self) -> str:
        return f"host=127.0.0.1 port={self.port} user={OWNER} dbname=postgres"

    def _command(self) -> list[str]:
        user = ["-u", self._user] if IS_ROOT else []
        return [str(self._program), *user, str(self.data_dir / "pgbouncer.ini")]

    def _is_ready(self) -> bool:
        return "process up" in self.log_tail() or "listening on" in self.log_tail()
