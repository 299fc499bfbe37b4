"""The sections of the backends: the settings of each, with their defaults and descriptions."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from cluster_lock.host.state_directory import state_directory

from .field_types import Addresses, Dsn, FilePath, RedisAddresses, ShortDuration, Texts


class Section(BaseModel):
    # pydantic's own texts would quote the input, which may be a secret.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True)

    pairs: ClassVar[tuple[tuple[str, str], ...]] = ()
    """Keys that belong together."""


class FileSection(Section):
    directory: FilePath = Field(default_factory=state_directory)
    """The folder of the lock files, relative to this file; empty: this user's state directory."""


class EtcdSection(Section):
    pairs = (("cert", "key"), ("user", "password"))

    endpoints: Addresses = ("http://127.0.0.1:2379",)
    """The servers, as a list or with commas."""
    ca: FilePath | None = None
    """A PEM file with the CA of the servers' certificates."""
    cert: FilePath | None = None
    """A PEM file with our client certificate."""
    key: FilePath | None = None
    """A PEM file with the key of that certificate."""
    user: str | None = None
    """The user name, if the servers ask for one."""
    password: SecretStr | None = None
    """The password of that user; better password_file."""
    password_file: FilePath | None = None
    """A file that holds the password instead."""

    @model_validator(mode="before")
    @classmethod
    def _split_user(cls, given: Any) -> Any:
        # etcdctl's own variable and flag may be "user:password".
        user = given.get("user") if isinstance(given, dict) else None
        if isinstance(user, str) and ":" in user:
            name, _, password = user.partition(":")
            return {"password": password, **given, "user": name}
        return given


class ConsulSection(Section):
    pairs = (("cert", "key"),)

    url: Addresses = ("http://127.0.0.1:8500",)
    """The agent, or several, as a list or with commas."""
    token: SecretStr | None = None
    """The ACL token; better token_file."""
    token_file: FilePath | None = None
    """A file that holds the ACL token instead."""
    ca: FilePath | None = None
    """A PEM file with the CA of the agents' certificates."""
    cert: FilePath | None = None
    """A PEM file with our client certificate."""
    key: FilePath | None = None
    """A PEM file with the key of that certificate."""
    datacenter: str | None = None
    """The datacenter that keeps the locks; empty: the agent's own."""
    lock_delay: ShortDuration = 0.0
    """How long Consul keeps a lock closed after an unclean end; at most 60s."""
    behavior: Literal["release", "delete"] = "release"
    """What Consul does with the keys of a session that ends: release or delete."""
    checks: Texts = ()
    """Health checks whose failure ends the session; none is the safe choice."""
    session_node: str | None = None
    """The node that sessions belong to; empty: the agent's own."""


class RedisSection(Section):
    pairs = (("cert", "key"),)

    url: RedisAddresses = ("redis://127.0.0.1:6379",)
    """The server, or several of which one is the primary, as a list or with commas; rediss:// with TLS."""
    service: str | None = None
    """The name of the primary at the Sentinels, whose addresses are then the url; empty: there are none."""
    db: int = Field(default=0, ge=0, le=1_000_000)
    """The number of the database."""
    user: str | None = None
    """The ACL user; empty: the default user."""
    password: SecretStr | None = None
    """The password of that user; better password_file."""
    password_file: FilePath | None = None
    """A file that holds the password instead."""
    ca: FilePath | None = None
    """A PEM file with the CA of the servers' certificates."""
    cert: FilePath | None = None
    """A PEM file with our client certificate."""
    key: FilePath | None = None
    """A PEM file with the key of that certificate."""
    wait_replicas: int = Field(default=0, ge=0, le=100)
    """How many replicas must have a grant before it is one; each needs an answer in time."""


class PostgresSection(Section):
    pairs = (("cert", "key"),)

    dsn: Dsn | None = None
    """Where it is, as libpq reads it (host=db1,db2 dbname=locks), without a password; PGHOST etc. fill in the rest."""
    user: str | None = None
    """The role to log in as; empty: as libpq finds it."""
    password: SecretStr | None = None
    """The password of that role; better password_file."""
    password_file: FilePath | None = None
    """A file that holds the password instead."""
    ca: FilePath | None = None
    """A PEM file with the CA of the servers' certificates; with it their names are checked."""
    cert: FilePath | None = None
    """A PEM file with our client certificate."""
    key: FilePath | None = None
    """A PEM file with the key of that certificate."""
    mode: Literal["lease", "advisory"] = "lease"
    """What holds a lock: lease, a row of the table; advisory, that and an advisory lock of a session of its own."""
