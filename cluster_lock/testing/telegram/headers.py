"""The headers by which a client tells the oracle who it is. A Bot API server ignores them."""

from __future__ import annotations

CLIENT_HEADER = "X-Cluster-Lock-Client"
"""The client's name, one for each instance."""
SENT_HEADER = "X-Cluster-Lock-Sent"
"""When the client wrote this request: `cluster_lock.clock` seconds."""
TERM_HEADER = "X-Cluster-Lock-Term"
"""The fencing token of the term in which it was written."""
