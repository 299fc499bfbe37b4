"""The client library: the module `consul`, which three distributions ship and two of which serve.

python-consul2 and its maintained successor py-consul have what is used here in common: the classes `KV` and `Session`
with the same methods, and the `http` object that these call.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from importlib import import_module, metadata
from typing import Any

from cluster_lock.errors import DriverMissing

_SERVE = ("python-consul2", "py-consul")
_UNFIT = "python-consul"  # 1.1.0 leaves the ACL token out of session and transaction requests
_INSTALL = "pip install 'cluster-lock[consul]'"


def check_library() -> None:
    """Raises DriverMissing if the driver cannot be used here."""
    client_class()
    if not _is_installed("aiohttp"):
        raise DriverMissing(f"aiohttp is not installed: {_INSTALL}")


def client_class() -> Any:
    """A client of the library: `client_class()(transport, token, datacenter)`. Its `misread` is what the library raises
    when an answer is none of Consul's, beside the exceptions of the language.

    Raises DriverMissing, with what to do, if there is no library that serves.
    """
    base = _module()
    kv, session, error = _part(base, "KV"), _part(base, "Session"), _part(base, "ConsulException")

    class Client(base.Consul):  # type: ignore[misc, name-defined]  # the module is found by name
        misread = (error,)

        # Without super().__init__(): that lets CONSUL_HTTP_ADDR, _SSL, _SSL_VERIFY and _TOKEN override the arguments,
        # raises for addresses that other tools accept, and warns of deprecated parts of its own.
        def __init__(self, transport: Any, token: str | None, datacenter: str | None) -> None:
            self.http = transport
            self.token = token
            self.dc = datacenter
            self.consistency = "consistent"  # nothing is ever decided on a stale read
            self.kv = kv(self)
            self.session = session(self)

        def http_connect(self, *_: Any, **__: Any) -> Any:
            return self.http

        # The library's own session.create asserts ttl >= 10 and whole seconds; py-consul's txn.put sends no token.
        async def create_session(self, body: dict[str, Any]) -> str:
            return str(await self._put("/v1/session/create", body, _session_id))

        async def transact(self, operations: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
            """What each operation left in the store, in their order; those that delete leave nothing."""

            def results(response: Any) -> Any:
                left = [result["KV"] for result in json.loads(response.body)["Results"] or ()]
                last = operations[-1]
                if last["Verb"] in ("lock", "unlock") and left[-1]["Key"] != last["Key"]:
                    raise ValueError(f"no word of {last['Key']}")
                return left

            made: list[dict[str, Any]] = await self._put("/v1/txn", [{"KV": each} for each in operations], results)
            return made

        async def ask(self, path: str) -> Any:
            """What a path answers that has no parameters but the datacenter."""
            params = [("dc", self.dc)] if self.dc else []
            headers = {"X-Consul-Token": self.token} if self.token else {}
            return await self.http.get(_content, path, params=params, headers=headers)

        async def _put(self, path: str, body: Any, callback: Callable[[Any], Any]) -> Any:
            params = [("dc", self.dc)] if self.dc else []
            headers = {"X-Consul-Token": self.token} if self.token else {}
            return await self.http.put(callback, path, params=params, headers=headers, data=json.dumps(body))

    return Client


def _content(response: Any) -> Any:
    return json.loads(response.body)


def _session_id(response: Any) -> Any:
    session = json.loads(response.body)["ID"]
    if not isinstance(session, str) or not session:
        raise TypeError("the id of a session is a text")
    return session


def _part(base: Any, name: str) -> Any:
    # python-consul2 nests them in Consul, py-consul imports them beside it.
    found = getattr(base.Consul, name, None) or getattr(base, name, None)
    if found is None:
        raise DriverMissing(f"the module 'consul' at {base.__file__} is not one we know, {_what_to_do()}")
    return found


def _module() -> Any:
    installed = [name for name in (*_SERVE, _UNFIT) if _is_installed(name)]
    if len(installed) > 1:
        raise DriverMissing(
            f"{' and '.join(installed)} are installed and overwrite each other's module 'consul': uninstall them all,"
            f" then {_INSTALL}"
        )
    if installed == [_UNFIT]:
        raise DriverMissing(
            f"{_UNFIT} sends no ACL token with sessions and transactions: uninstall it, then {_INSTALL}"
        )
    try:
        base = import_module("consul.base")
    except ImportError as error:
        raise DriverMissing(f"the Consul driver needs the module 'consul' ({error}), {_what_to_do()}") from error
    if not hasattr(base, "Consul"):
        raise DriverMissing(f"the module 'consul' at {base.__file__} is not a Consul client, {_what_to_do()}")
    return base


def _what_to_do() -> str:
    return f"which comes with {' or '.join(_SERVE)} (one, not both): {_INSTALL}"


def _is_installed(distribution: str) -> bool:
    # By the name of the distribution: python-consul2's metadata does not say that it ships the module `consul`.
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True
