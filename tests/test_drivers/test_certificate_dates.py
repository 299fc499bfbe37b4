"""When certificates end: what the drivers read of their own files."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
from cryptography import x509
from support.certs import Authority

from cluster_lock.drivers.shared.certificates import validities
from cluster_lock.drivers.shared.tls_files import TLSFiles
from cluster_lock.values import Validity

DAY = dt.timedelta(days=1)


def as_cryptography_has_it(path: Path) -> Validity:
    found = x509.load_pem_x509_certificate(path.read_bytes())
    return Validity(found.not_valid_before_utc.timestamp(), found.not_valid_after_utc.timestamp())


@pytest.mark.parametrize("years", [0, 10, 40], ids=["this year", "ten years", "after 2049, in the longer form"])
def test_dates_are_those_of_the_certificate(tmp_path: Path, years: int) -> None:
    """Begin and end are read as another library reads them, in both forms that a date has."""
    cert, _ = Authority(tmp_path).issue("one", "127.0.0.1", age=400 * DAY, left=(366 * years + 3) * DAY)
    assert validities(cert.read_bytes()) == [as_cryptography_has_it(cert)]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"-----BEGIN CERTIFICATE-----\n\n-----END CERTIFICATE-----",
        b"-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----",
        b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
        b"-----BEGIN CERTIFICATE-----\n\xff\n-----END CERTIFICATE-----",
    ],
)
def test_what_is_no_certificate_is_left_out(tmp_path: Path, content: bytes) -> None:
    """Junk in a file has no dates and hides none of those beside it."""
    ca = Authority(tmp_path).ca
    assert validities(content + b"\n" + ca.read_bytes()) == [as_cryptography_has_it(ca)]


def test_what_counts_of_several(tmp_path: Path) -> None:
    """Of two authorities that which ends last, since a new one stands beside the old one; of a chain that which ends
    first; and new files count as soon as they are read."""
    authority = Authority(tmp_path)
    early, key = authority.issue("early", left=DAY)
    late, _ = authority.issue("late", left=9 * DAY)
    both, chain = tmp_path / "both.crt", tmp_path / "chain.crt"
    both.write_bytes(authority.ca.read_bytes() + late.read_bytes())
    chain.write_bytes(early.read_bytes() + late.read_bytes())
    files = TLSFiles("etcd", both, chain, key)
    files.load()
    assert files.validity == {"ca": as_cryptography_has_it(late), "cert": as_cryptography_has_it(early)}
    renewed, new_key = authority.issue("renewed", left=5 * DAY)
    new_key.replace(key)
    renewed.replace(chain)
    files.look()
    assert files.validity["cert"] == as_cryptography_has_it(chain)
