"""config.yaml, variables and command line as one frozen, checked value.

`load()` finds and checks them, `open_driver()` makes the driver they choose. Every error names file, line and key.
Importing this loads pydantic and yaml, which `import cluster_lock` does not.
"""

from .backend import driver_options, open_driver
from .backend_sections import ConsulSection, EtcdSection, FileSection, PostgresSection, RedisSection
from .loading import load
from .model import LockSection, Settings, TelegramSection
from .show import example, origins, schema, shown, shown_line, shown_text

__all__ = [
    "ConsulSection",
    "EtcdSection",
    "FileSection",
    "LockSection",
    "PostgresSection",
    "RedisSection",
    "Settings",
    "TelegramSection",
    "driver_options",
    "example",
    "load",
    "open_driver",
    "origins",
    "schema",
    "shown",
    "shown_line",
    "shown_text",
]
