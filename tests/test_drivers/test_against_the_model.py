"""Every driver does what the model of the contract does, in whatever order its verbs are called.

The suite of conformance has the orders that somebody thought of. These are those of hypothesis: the same in each run,
or others with `--hypothesis-profile=search`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

import pytest
from hypothesis import Phase, settings
from hypothesis.configuration import set_hypothesis_home_dir
from hypothesis.stateful import run_state_machine_as_test
from support.backends import Backend
from support.driver_ground import TTL, runner
from support.driver_machine import DriverMachine
from support.faulty_drivers import AcquiringAgainWritesAgain, ComparingStates, WaitingFromNow, WithdrawingAnything
from support.stores import CONSUL, Operator, open_driver

from cluster_lock.drivers.memory import MemoryBackend, MemoryDriver
from cluster_lock.values import Entry, Grant, Lease, Traits

# It cannot tell, since Python 3.14, whether a generator of its own is held by anybody.
pytestmark = pytest.mark.filterwarnings("ignore:It looks like `register_random` was passed")

SLOW_REQUEST = 30.0
"""Seconds: no request fails here because the machine is busy."""
BACKENDS = [
    pytest.param("file", marks=(pytest.mark.file, pytest.mark.slow)),
    pytest.param("etcd35", marks=pytest.mark.etcd),
    CONSUL,
    pytest.param("redis", marks=pytest.mark.redis),
    pytest.param("postgres18", marks=pytest.mark.postgres),
]


@pytest.fixture(autouse=True, scope="module")
def _no_trace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What hypothesis writes down about the source of the library is not for the checkout."""
    set_hypothesis_home_dir(tmp_path_factory.mktemp("hypothesis"))
    yield
    set_hypothesis_home_dir(None)


@pytest.mark.parametrize("backend", BACKENDS, indirect=True, scope="session")
def test_a_driver_does_what_the_model_does(backend: Backend) -> None:
    """On a real store, what two clients do and read is as the model says at each step."""
    Operator(backend, "").wait_for_leases(int(TTL))

    class Machine(DriverMachine):
        def __init__(self) -> None:
            super().__init__(loop, lambda prefix: open_driver(backend, prefix, SLOW_REQUEST))

    # A shorter example of a change that is not told would cost a wait for each try.
    few = settings(max_examples=max(1, settings().max_examples // 7), phases=[Phase.generate])
    with runner() as loop:
        run_state_machine_as_test(Machine, settings=few)


class Fault:
    """A store and a driver that are right but for what a subclass changes; `told`: what the machine says of it."""

    told: ClassVar[str] = ""
    driver: ClassVar[type[MemoryDriver]] = MemoryDriver
    store: ClassVar[type[MemoryBackend]] = MemoryBackend


def run_in_memory(kind: type[Fault], options: settings, traits: Traits | None = None) -> Counter[str]:
    """What was reached."""

    class Machine(DriverMachine):
        def __init__(self) -> None:
            memory = kind.store(traits=traits)
            super().__init__(loop, lambda prefix: kind.driver(memory, prefix=prefix))

    with runner(patience=0.0) as loop:
        run_state_machine_as_test(Machine, settings=options)
    return loop.reached


@pytest.mark.parametrize("expires", [True, False])
def test_the_memory_driver_does_what_the_model_does(expires: bool) -> None:
    """The specification in code agrees with the model, and the machine gets to each place that it is there for."""
    reached = run_in_memory(Fault, settings(), Traits(expires=expires))
    assert set(PLACES) <= reached.keys(), reached


PLACES = (
    "acquired",
    "acquired again",
    "lease expired",
    "released",
    "released late",
    "released late, in a later term",
    "told of what changed",
    "told that nothing changed",
    "transferred",
    "transferred late",
    "transferred late, in a later term",
    "transferred to an heir that left",
    "withdrawn",
)


class ReleaseGuardedByTheLeaseOnly(Fault):
    told = "but Held|but None stands there"

    class store(MemoryBackend):  # noqa: N801
        def release(self, grant: Grant, key: str, farewell: bytes) -> None:
            stands = self._keys.get(key)
            if stands is not None and stands.lease == grant.lease.id:
                super().release(replace(grant, index=stands.index), key, farewell)


class TokenThatGoesBackAfterARevoke(Fault):
    told = "the token went back"

    class store(MemoryBackend):  # noqa: N801
        def __init__(self, *, traits: Traits | None = None) -> None:
            super().__init__(traits=traits)
            self.start = 0
            self.tokens: dict[int, int] = {}

        def end_lease(self, lease_id: str) -> None:
            super().end_lease(lease_id)
            self.start = self.index

        def acquire(self, lease: Lease, key: str, name: str, record: bytes) -> Grant | None:
            is_free = key not in self._keys
            grant = super().acquire(lease, key, name, record)
            if grant is None:
                return None
            if is_free:
                self.tokens[grant.index] = grant.index - self.start
            return replace(grant, token=self.tokens.get(grant.index, grant.index))


class TransferWithoutALookAtTheContender(Fault):
    told = "transferred: True; the heir waits: False"

    class store(MemoryBackend):  # noqa: N801
        def transfer(self, grant: Grant, key: str, heir: Entry, heir_key: str, record: bytes) -> bool:
            if not self._stands(grant, key) or heir.lease not in self._leases:
                return False
            self._put(key, heir.lease, record, previous=self._keys[key].record)
            return True


class TransferGuardedByTheLeaseOnly(Fault):
    told = "transferred a grant whose term is over"

    class store(MemoryBackend):  # noqa: N801
        def transfer(self, grant: Grant, key: str, heir: Entry, heir_key: str, record: bytes) -> bool:
            stands = self._keys.get(key)
            index = stands.index if stands is not None and stands.lease == grant.lease.id else grant.index
            return super().transfer(replace(grant, index=index), key, heir, heir_key, record)


class WaitFromNow(Fault):
    told = "not told of"
    driver = WaitingFromNow


class WaitThatComparesStates(Fault):
    told = "not told of"
    driver = ComparingStates


class AcquireAgainWritesAgain(Fault):
    told = "acquired again, it is another grant"
    store = AcquiringAgainWritesAgain


class CloseEndsTheLeases(Fault):
    told = "but Held|said of a lease that lives"

    class driver(MemoryDriver):  # noqa: N801
        async def close(self) -> None:
            for lease_id in self._mine:
                self._backend.end_lease(lease_id)


class WithdrawalOfAnything(Fault):
    told = "but Held"
    store = WithdrawingAnything


class FarewellThatIsLost(Fault):
    told = "not what the last holder left"

    class store(MemoryBackend):  # noqa: N801
        def release(self, grant: Grant, key: str, farewell: bytes) -> None:
            super().release(grant, key, self._keys[key].record if self._stands(grant, key) else farewell)


class AnnouncedUnderALeaseThatIsOver(Fault):
    told = "under a lease that is over"

    class store(MemoryBackend):  # noqa: N801
        def announce(self, lease: Lease, key: str, record: bytes) -> None:
            if lease.id in self._leases:
                super().announce(lease, key, record)


@pytest.mark.slow
@pytest.mark.parametrize("fault", Fault.__subclasses__(), ids=lambda fault: fault.__name__)
def test_a_fault_is_found(fault: type[Fault]) -> None:
    """The machine finds what this driver does wrong, and says what it is."""
    with pytest.raises(AssertionError, match=fault.told):
        run_in_memory(fault, settings(phases=[Phase.generate], report_multiple_bugs=False))
