"""PEM files for TLS, read again when they change.

Certificates of short life are replaced on the disk while we run (cert-manager, Vault, certbot). A connection that
stands goes on with the old ones: the servers may not know the new ones yet. The next handshake must have them.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path

from cluster_lock.errors import ConfigError, PermissionRefused
from cluster_lock.values import Validity

from .addresses import Address
from .certificates import shown_by, validities

log = logging.getLogger("cluster_lock.drivers")

_Stamp = tuple[tuple[int, int, int] | None, ...]


class TLSFiles:
    """`driver` names it in messages. `key` is not needed where it stands in `cert`. Without `ca` the public authorities
    are trusted."""

    def __init__(self, driver: str, ca: str | Path | None, cert: str | Path | None, key: str | Path | None) -> None:
        self._driver = driver
        self._paths = tuple(None if path is None else Path(path) for path in (ca, cert, key))
        self._looked_at: _Stamp = ()
        self._trouble = ""
        self.context: ssl.SSLContext
        """Of the files as they were last read: another one each time."""
        self.contents: tuple[bytes | None, ...]
        """Of ca, cert and key."""
        self.validity: dict[str, Validity] = {}
        """Of `ca` and `cert`, as they were last read. Of several authorities the last one counts, since a new one is
        put beside the old one; of a chain the first that ends."""

    def load(self) -> None:
        """Read the files. Raises ConfigError for what cannot be used, PermissionRefused for their rights."""
        self._looked_at = self._stamp()  # before they are read: what changes meanwhile is another change
        ca, cert, key = self._paths
        try:
            context = ssl.create_default_context(cafile=ca)
        except (OSError, ssl.SSLError) as error:
            raise self._unusable(f"ca {ca}", error) from error
        try:
            if cert is not None:
                # A callable, or OpenSSL asks for the key's password at the terminal.
                context.load_cert_chain(cert, key, password=lambda: "")
            contents = tuple(None if path is None else path.read_bytes() for path in self._paths)
        except (OSError, ssl.SSLError) as error:
            raise self._unusable(f"cert {cert} with key {key or 'in it'}", error) from error
        self.context, self.contents = context, contents
        self.validity = {
            name: counts(found, key=attrgetter("end"))
            for name, counts, content in (("ca", max, contents[0]), ("cert", min, contents[1]))
            if (found := validities(content or b""))
        }

    def look(self) -> None:
        """Read the files if they have changed. What cannot be used is told in the log, once; then what was read before
        stays in use."""
        if self._stamp() == self._looked_at:
            return
        try:
            self.load()
        except (ConfigError, PermissionRefused) as error:
            # No request needs them now, so no answer could tell.
            log.warning("the TLS files have changed and the old ones stay in use: %s", error)
            self._trouble = f"; {error}"
        else:
            log.info("%s: the TLS files have changed and were read", self._driver)
            self._trouble = ""

    async def shown_by(self, addresses: Sequence[Address], within: float, wish: bytes = b"") -> dict[str, Validity]:
        """Of the certificates that those with TLS show to who comes with these files; see `certificates.shown_by`."""
        secure = [address for address in addresses if address.tls]
        return await shown_by(secure, self.context, within, wish) if secure else {}

    def __str__(self) -> str:
        ca, cert, _ = self._paths
        return f"TLS with ca {ca}, cert {cert}{self._trouble}"

    def _stamp(self) -> _Stamp:
        return tuple(map(_stamp, self._paths))

    def _unusable(self, what: str, error: OSError) -> ConfigError | PermissionRefused:
        if isinstance(error, PermissionError):
            return PermissionRefused(f"{self._driver}: {what} cannot be read: {error.strerror}")
        return ConfigError([f"{self._driver}: {what} cannot be used: {error.strerror or error}"])


def _stamp(path: Path | None) -> tuple[int, int, int] | None:
    try:
        told = path.stat() if path is not None else None
    except OSError:
        return None
    return (told.st_mtime_ns, told.st_size, told.st_ino) if told is not None else None
