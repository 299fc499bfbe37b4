"""What every driver must do, as a class of tests. Subclass it in the tests of your driver:

    class TestMyDriver(DriverConformance):
        ttl = 2.0

        async def open_driver(self) -> Driver:
            driver = MyDriver("http://127.0.0.1:1234", prefix=self.prefix)
            await driver.open()
            return driver

Its methods are sync, each runs its own event loop: no plugin is needed. Override the hooks (`stranger_writes`,
`stranger_writes_bytes`, `stranger_deletes`, `count_leases`, `forgotten_position`, `save_store`, `restore_store`,
`restart_server`) as far as your backend can be reached without the driver: what has no hook is reported as skipped. For
readable failures let pytest rewrite the asserts, in conftest.py:
`pytest.register_assert_rewrite("cluster_lock.testing._conformance")`.
"""

from __future__ import annotations

from ._conformance.bench import Backend
from ._conformance.cancelling import Cancelling
from ._conformance.handover import Handover
from ._conformance.leases import Leases
from ._conformance.locks import Locks
from ._conformance.outages import Outages
from ._conformance.strangers import Strangers
from ._conformance.watching import Watching

__all__ = ["DriverConformance"]


class DriverConformance(Leases, Locks, Handover, Watching, Cancelling, Strangers, Outages, Backend):
    """The whole suite. Its attributes and hooks are described where `Backend` defines them."""
