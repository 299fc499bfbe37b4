"""Real servers as child processes on loopback: for tests, the demo and benchmarks of everybody who writes a driver.

    with EtcdServer() as server:
        print(server.endpoints)

A server that is not installed raises `ServerMissing`, whose text says what to run. Whatever was started ends with this
process, also when it is killed (Linux).
"""

from .base import Cluster, Server, ServerFailed, ServerTLS
from .consul import ConsulCluster, ConsulServer
from .etcd import EtcdCluster, EtcdServer
from .pgbouncer import PgBouncer
from .postgres import PostgresServer
from .redis import RedisServer
from .tools import ServerMissing, find_tool

__all__ = [
    "Cluster",
    "ConsulCluster",
    "ConsulServer",
    "EtcdCluster",
    "EtcdServer",
    "PgBouncer",
    "PostgresServer",
    "RedisServer",
    "Server",
    "ServerFailed",
    "ServerMissing",
    "ServerTLS",
    "find_tool",
]
