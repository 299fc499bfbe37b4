"""The endpoints of etcd: for each a channel and the stubs on it, made anew when the certificates are."""

from __future__ import annotations

import asyncio
from typing import Any

from cluster_lock.drivers.shared.addresses import Address

from .address import EtcdAccess
from .library import Library

_CHANNEL_OPTIONS = (
    # A dead connection is noticed 13 s after it went silent; without ping_timeout_ms it takes 70 s. To pings more often
    # than every 5 s etcd answers by hanging up (too_many_pings).
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.http2.ping_timeout_ms", 3_000),
    ("grpc.http2.max_pings_without_data", 0),
    # By default a server that came back is left alone for up to 120 s, and a lost SYN costs 20 s.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 500),
    # A request that gRPC repeats by itself could be answered "refused" although its first copy was applied.
    ("grpc.enable_retries", 0),
    # The environment must not lead a lock's requests, and passwords, through a proxy that nobody named here.
    ("grpc.enable_http_proxy", 0),
    # A scan of ten thousand records is larger than the 4 MiB that gRPC takes by default. What is larger than this is
    # nobody's, and what is compressed could be blown up to anything: nobody asks for that.
    ("grpc.max_receive_message_length", 64 * 2**20),
    ("grpc.compression_enabled_algorithms_bitset", 1),
    # Two drivers of one process share nothing, not even a connection's troubles.
    ("grpc.use_local_subchannel_pool", 1),
)

_RETIRED = 120.0
"""Seconds for which a channel with old certificates lives on, for the waits that are under way on it."""


class Node:
    """`name`: its address, for people and for the list of those that we know. `made_with`: tells one version of the
    TLS files from the next."""

    def __init__(self, library: Library, address: Address, credentials: Any, made_with: object) -> None:
        grpc, rpc = library
        self.made_with = made_with
        self.name = str(address)
        self.tls = address.tls
        self.channel = (
            grpc.aio.secure_channel(address.target, credentials, options=_CHANNEL_OPTIONS)
            if address.tls
            else grpc.aio.insecure_channel(address.target, options=_CHANNEL_OPTIONS)
        )
        self.kv = rpc.KVStub(self.channel)
        self.leases = rpc.LeaseStub(self.channel)
        self.watches = rpc.WatchStub(self.channel)
        self.auth = rpc.AuthStub(self.channel)
        self.cluster = rpc.ClusterStub(self.channel)
        self.maintenance = rpc.MaintenanceStub(self.channel)


class Nodes:
    """`all`: in the order of the settings. Raises ConfigError and PermissionRefused for TLS files that cannot be
    used."""

    def __init__(self, library: Library, access: EtcdAccess) -> None:
        self._library, self._access = library, access
        if any(address.tls for address in access.addresses):
            access.files.load()
        self.all = [self._made(index) for index in range(len(access.addresses))]
        self._old: list[Node] = []
        self._closing: set[asyncio.Future[None]] = set()

    def look(self) -> None:
        """Are there new certificates?"""
        if any(node.tls for node in self.all):
            self._access.files.look()

    def renewed(self, node: Node) -> bool:
        """Has the node been replaced by one with new certificates? The old one ends when nobody can need it any
        more."""
        self.look()
        if not node.tls or node.made_with is self._access.files.context:
            return False
        if node in self.all:  # else somebody else was quicker
            index = self.all.index(node)
            self.all[index] = self._made(index)
            self._old.append(node)
            asyncio.get_running_loop().call_later(_RETIRED, self._retire, node)
        return True

    async def close(self) -> None:
        old, self._old = self._old, []
        for node in (*self.all, *old):
            await node.channel.close()

    def _made(self, index: int) -> Node:
        address, files = self._access.addresses[index], self._access.files
        if not address.tls:
            return Node(self._library, address, None, None)
        ca, cert, key = files.contents
        return Node(self._library, address, self._library.grpc.ssl_channel_credentials(ca, key, cert), files.context)

    def _retire(self, node: Node) -> None:
        if node in self._old:
            self._old.remove(node)
            closing = asyncio.ensure_future(node.channel.close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
