"""One leader on many servers: locks with leases over Consul, etcd or a file, and a guarded aiogram poller."""

__version__ = "0.1.0"
