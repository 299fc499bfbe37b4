"""Certificates for a test: a CA, a server on loopback, a client."""

from __future__ import annotations

import datetime as dt
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cluster_lock.testing.servers import ServerTLS

_SIGNS = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)
_AGE, _LEFT = dt.timedelta(hours=1), dt.timedelta(days=2)
_USES = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]


class Authority:
    """A certificate authority of its own; two of them do not trust each other."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(f"{name} of a test")
        builder = _builder(self._name, self._name, self._key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        # Since Python 3.13 a default context verifies strictly: no chain without these three.
        builder = builder.add_extension(_SIGNS, critical=True)
        subject_key = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        builder = builder.add_extension(subject_key, critical=False)
        self.ca = folder / f"{name}.crt"
        self.ca.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str, *hosts: str, age: dt.timedelta = _AGE, left: dt.timedelta = _LEFT) -> tuple[Path, Path]:
        """The paths of a certificate (common name `name`, for those host names and addresses) and of its key. `age`:
        since when it is good; `left`: for how long it is good."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_name(name), self._name, key.public_key(), age, left)
        builder = builder.add_extension(x509.ExtendedKeyUsage(_USES), critical=False)
        issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = builder.add_extension(issuer_key, critical=False)
        if hosts:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False
            )
        cert_path, key_path = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        signed = builder.sign(self._key, hashes.SHA256())
        cert_path.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        key_path.touch(mode=0o600)
        key_path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return cert_path, key_path


def make_tls(folder: Path, *, client: bool = True) -> ServerTLS:
    """A server certificate for 127.0.0.1 and localhost; with `client`, the server demands a certificate too."""
    authority = Authority(folder)
    cert, key = authority.issue("server", "127.0.0.1", "localhost")
    client_cert, client_key = authority.issue("client") if client else (None, None)
    return ServerTLS(authority.ca, cert, key, client_cert, client_key)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    age: dt.timedelta = _AGE,
    left: dt.timedelta = _LEFT,
) -> x509.CertificateBuilder:
    moment = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(moment - age)
        .not_valid_after(moment + left)
    )
