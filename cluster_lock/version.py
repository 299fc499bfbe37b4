"""The version of the package: of what is installed, and of what writes a record."""

__version__ = "0.2.0"
