"""Registers an external node that sessions may belong to: python register_node.py URL NAME.

Consul's own tool cannot do this. Nobody runs on that node, so it never leaves and takes no session along.
"""

from __future__ import annotations

import json
import ssl
import sys
import urllib.request
from pathlib import Path

OPERATOR = Path("/run/operator")
TOKEN = Path("/run/secrets/management_token")


def main(url: str, name: str) -> None:
    context = ssl.create_default_context(cafile=OPERATOR / "ca.crt")
    context.load_cert_chain(OPERATOR / "operator.crt", OPERATOR / "operator.key")
    # `external-node` keeps the servers from expecting an agent there.
    node = {"Node": name, "Address": "127.0.0.1", "NodeMeta": {"external-node": "true"}}
    request = urllib.request.Request(f"{url}/v1/catalog/register", data=json.dumps(node).encode(), method="PUT")
    request.add_header("X-Consul-Token", TOKEN.read_text().strip())
    with urllib.request.urlopen(request, timeout=10, context=context):
        sys.stdout.write(f"registered the node {name}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
