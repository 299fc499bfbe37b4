"""The version of the package: shown by the command, and written into each record."""

__version__ = "0.2.0"
