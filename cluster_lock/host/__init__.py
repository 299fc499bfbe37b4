"""The operating system: file locks, private files, the state directory, addresses, logs, masking of secrets.

Nothing here knows of leases. For everybody above `values`.
"""
