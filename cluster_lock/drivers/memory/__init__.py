"""The specification: what every driver does, said in the least code, on a store that lives in this process.

A real driver for tests and for trying things out: leases expire on `clock.now()`, tokens come from the store's one
index, and every verb can be cancelled on the way there and on the way back. All drivers on one `MemoryBackend` must run
on the same event loop.
"""

from .driver import MemoryDriver
from .store import MemoryBackend

__all__ = ["MemoryBackend", "MemoryDriver"]
