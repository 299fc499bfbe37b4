"""Processes that a program forks beside the etcd driver, as `multiprocessing` does by default up to Python 3.13."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import textwrap

import pytest
from support.etcd import new_prefix

from cluster_lock.testing.servers import EtcdServer

pytestmark = pytest.mark.etcd

PROGRAM = """
    import asyncio, logging, multiprocessing, os, sys, warnings
    from collections import Counter
    from concurrent.futures import ProcessPoolExecutor
    from cluster_lock.drivers.etcd import EtcdDriver

    forks = multiprocessing.get_context("fork")

    async def main(endpoints, prefix):
        driver = EtcdDriver(endpoints, prefix=prefix, request_timeout=10.0)
        await driver.open()

        async def keep_busy():
            while True:
                await driver.scan("leader/")

        busy = [asyncio.create_task(keep_busy()) for _ in range(4)]
        await driver.scan("leader/")
        codes = Counter()
        loop = asyncio.get_running_loop()
        for _ in range(20):
            child = forks.Process(target=int)
            child.start()
            ended = asyncio.Event()
            loop.add_reader(child.sentinel, ended.set)
            await ended.wait()
            loop.remove_reader(child.sentinel)
            child.join()
            codes[child.exitcode] += 1
        with ProcessPoolExecutor(3, mp_context=forks) as pool:
            answers = await asyncio.gather(*(loop.run_in_executor(pool, abs, -number) for number in range(20)))
        for task in busy:
            task.cancel()
        await driver.close()
        print((dict(codes), answers, os.environ.get("GRPC_ENABLE_FORK_SUPPORT")))

    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    if "grpc" in sys.argv:
        import grpc
    asyncio.run(main([sys.argv[1]], sys.argv[2]))
"""


def run(server: EtcdServer, *more: str, **environ: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GRPC_")} | environ
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), server.endpoints[0], new_prefix(), *more],
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_what_a_program_forks_beside_the_driver_lives(etcd_server: EtcdServer) -> None:
    """Children and pools made by fork do their work while requests are under way, gRPC touches none of them, and the
    environment is as it was."""
    done = run(etcd_server)
    assert done.returncode == 0, done.stderr
    assert ast.literal_eval(done.stdout) == ({0: 20}, list(range(20)), None)
    assert "fork" not in done.stderr, "gRPC says that it wanted to have a part in it"


@pytest.mark.parametrize(
    ("more", "environ", "told"),
    [
        ([], {"GRPC_ENABLE_FORK_SUPPORT": "1"}, "GRPC_ENABLE_FORK_SUPPORT=1 is set"),
        (["grpc"], {}, "grpc was imported before the etcd driver"),
    ],
)
def test_a_gRPC_that_takes_part_in_forks_is_told(  # noqa: N802
    etcd_server: EtcdServer, more: list[str], environ: dict[str, str], told: str
) -> None:
    """Where gRPC's fork support is on by somebody else's doing, a warning says what it may do and how to end it."""
    said = run(etcd_server, *more, **environ).stderr
    assert told in said
    assert "set GRPC_ENABLE_FORK_SUPPORT=0" in said


def test_no_word_where_it_is_off_already(etcd_server: EtcdServer) -> None:
    """A program that imported gRPC itself, without its fork support, is told nothing."""
    done = run(etcd_server, "grpc", GRPC_ENABLE_FORK_SUPPORT="false")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
