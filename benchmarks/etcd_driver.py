"""What the etcd driver costs over the raw grpc.aio client, in the same run, round by round (_side_by_side.py).

    python benchmarks/etcd_driver.py [--release 3.5] [--rounds 300]

The server is a real one, with its data on disk.
"""

from __future__ import annotations

import argparse
import asyncio

import grpc.aio
from _side_by_side import RECORD, TTL, compare
from etcd3 import etcdrpc as rpc

from cluster_lock.drivers.etcd import EtcdDriver
from cluster_lock.testing.servers import EtcdServer


class Raw:
    """The least that does the same, by hand."""

    def __init__(self, target: str, lease: int) -> None:
        self.channel = grpc.aio.insecure_channel(target)
        self.kv = rpc.KVStub(self.channel)
        self.lease = lease
        self.revision = 0

    async def open(self) -> None:
        await rpc.LeaseStub(self.channel).LeaseGrant(rpc.LeaseGrantRequest(TTL=TTL, ID=self.lease), timeout=4)

    async def close(self) -> None:
        await self.channel.close()

    async def acquire(self, key: str) -> None:
        name = key.encode()
        compare = rpc.Compare(result=rpc.Compare.EQUAL, target=rpc.Compare.CREATE, key=name, create_revision=0)
        put = rpc.RequestOp(request_put=rpc.PutRequest(key=name, value=RECORD, lease=self.lease))
        get = rpc.RequestOp(request_range=rpc.RangeRequest(key=name))
        answer = await self.kv.Txn(rpc.TxnRequest(compare=[compare], success=[put], failure=[get]), timeout=4)
        assert answer.succeeded
        self.revision = int(answer.header.revision)

    async def release(self, key: str) -> None:
        name = key.encode()
        compare = rpc.Compare(result=rpc.Compare.EQUAL, target=rpc.Compare.MOD, key=name, mod_revision=self.revision)
        delete = rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=name))
        answer = await self.kv.Txn(rpc.TxnRequest(compare=[compare], success=[delete]), timeout=4)
        assert answer.succeeded

    async def until_free(self, key: str) -> None:
        watching = rpc.WatchStub(self.channel).Watch()
        await watching.write(rpc.WatchRequest(create_request=rpc.WatchCreateRequest(key=key.encode())))
        assert (await watching.read()).created
        while not any(event.type == 1 for event in (await watching.read()).events):
            pass
        watching.cancel()


async def run(server: EtcdServer, rounds: int) -> bool:
    raws = [Raw(f"{server.host}:{server.client_port}", lease) for lease in (1001, 1002)]
    drivers = [EtcdDriver(server.endpoints, prefix="bench/", request_timeout=4.0) for _ in range(2)]
    return await compare(raws, drivers, rounds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--release", choices=("3.4", "3.5"), default=None)
    parser.add_argument("--rounds", type=int, default=300)
    options = parser.parse_args()
    with EtcdServer(release=options.release, fast=False) as server:
        print(server)
        return 0 if asyncio.run(run(server, options.rounds)) else 1


if __name__ == "__main__":
    raise SystemExit(main())
