"""The file driver keeps the contract, on a folder of this machine."""

from __future__ import annotations

import tempfile
from pathlib import Path

from cluster_lock.driver import Driver
from cluster_lock.drivers.file import FileDriver
from cluster_lock.drivers.file.keyfile import file_name
from cluster_lock.host.flock import is_locked
from cluster_lock.host.inotify import FileWatch, Polling
from cluster_lock.testing.conformance import DriverConformance
from cluster_lock.values import Traits


class TestFile(DriverConformance):
    ttl = 0.3

    def setup_method(self) -> None:
        super().setup_method()
        self.folder = tempfile.TemporaryDirectory()
        self.directory = Path(self.folder.name)

    def teardown_method(self) -> None:
        self.folder.cleanup()

    async def open_driver(self) -> Driver:
        driver = FileDriver(self.directory, prefix=self.prefix)
        await driver.open()
        return driver

    def key(self, name: str) -> Path:
        return self.directory / "keys" / file_name(self.prefix + name)

    async def stranger_writes(self, name: str, value: bytes) -> None:
        self.key(name).write_bytes(value)

    async def stranger_deletes(self, name: str) -> None:
        self.key(name).unlink()

    async def count_leases(self) -> int:
        return sum(is_locked(path) for path in (self.directory / "leases").iterdir())

    async def forgotten_position(self) -> object:
        return object()


class PollingDriver(FileDriver):
    """The driver as it is where nobody tells of changes: macOS, Windows."""

    @property
    def traits(self) -> Traits:
        return Traits(expires=False, notifies=False)

    def _watching(self) -> FileWatch:
        return Polling()


class TestFilePolling(TestFile):
    """It keeps the contract without inotify too."""

    async def open_driver(self) -> Driver:
        driver = PollingDriver(self.directory, prefix=self.prefix)
        await driver.open()
        return driver
