"""How an instance of the demo is started: the command of any user, with every setting given."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from cluster_lock.config.field_types import duration_text
from cluster_lock.testing.servers import ConsulServer, EtcdServer, PostgresServer, RedisServer, Server

from .plan import DemoPlan

APP = "bot.demo.app:dispatcher"
SIMULATOR = "BOT_DEMO_SIMULATOR"
STATUS_PORT = "BOT_DEMO_STATUS_PORT"
INSTANCE = "CLUSTER_LOCK_INSTANCE"

SETTINGS_BEGIN_WITH = ("CLUSTER_LOCK_", "ETCDCTL_", "CONSUL_", "TELEGRAM_", "POD_NAME")
"""The variables that settings are read from."""
TIMES = ("ttl", "margin", "stop_time", "settle", "invite", "drain", "cancel_grace")


@dataclass(frozen=True, slots=True)
class Launch:
    """`folder`: where the processes run. Their logs are in `logs`."""

    command: tuple[str, ...]
    environ: dict[str, str]
    folder: Path
    logs: Path


def launch(plan: DemoPlan, folder: Path, server: Server | None, telegram: str, status_port: int) -> Launch:
    """With a `server` of ours (or with files) nothing else is read: no variable, no .env, no config.yaml. With the one
    that is configured, whatever says where it is counts, and the command line wins over all else."""
    is_ours = plan.config is None
    command = [sys.executable, "-m", "bot", "start", "--in-process", "--set", "health=off"]
    command += ["--app", APP, "--backend", plan.backend]
    values = _values(plan, folder, telegram) | _address(server)
    if plan.config is not None and plan.config.file is not None:
        command += ["--config", str(plan.config.file.absolute())]
    environ = {
        name: value
        for name, value in os.environ.items()
        if not (is_ours and name.startswith(SETTINGS_BEGIN_WITH)) or name == "CLUSTER_LOCK_TOOLS"
    }
    environ |= {
        "PYTHONPATH": os.pathsep.join(filter(None, (_checkout(), os.environ.get("PYTHONPATH", "")))),
        "TELEGRAM_BOT_TOKEN": plan.token,
        "CLUSTER_LOCK_STATE_DIR": str(folder / "state"),
        SIMULATOR: telegram,
        STATUS_PORT: str(status_port),
    }
    for key, value in values.items():
        command += ["--set", f"{key}={value}"]
    return Launch(tuple(command), environ, folder if is_ours else Path.cwd(), folder)


def _values(plan: DemoPlan, folder: Path, telegram: str) -> dict[str, str]:
    timing = plan.timing
    return {
        **{f"lock.{name}": duration_text(getattr(timing, name)) for name in TIMES},
        "telegram.api": telegram,
        "telegram.poll_timeout": duration_text(plan.times.poll_timeout),
        "telegram.handler_timeout": duration_text(plan.times.handler_timeout),
        "prefix": f"cluster-lock-demo/{plan.bot_id}/",
        "file.directory": str(folder / "locks"),
    }


def _address(server: Server | None) -> dict[str, str]:
    if isinstance(server, EtcdServer):
        return {"etcd.endpoints": server.endpoint}
    if isinstance(server, ConsulServer):
        return {"consul.url": server.url}
    if isinstance(server, RedisServer):
        return {"redis.url": server.url}
    if isinstance(server, PostgresServer):
        return {"postgres.dsn": server.dsn}
    return {}


def _checkout() -> str:
    """Where the package `bot` is, for a child with another working directory."""
    return str(Path(__file__).parents[2])
