"""The doctor's look at certificates, ours and those that the servers show: does one of them end soon?"""

from __future__ import annotations

from cluster_lock import clock
from cluster_lock.driver import Certified, Driver
from cluster_lock.values import Validity

from .findings import Finding
from .output import duration

SOON, SHARE = 30 * 86_400.0, 0.25
"""Seconds before its end at which a certificate is worth a warning, but no more than this part of its life: who
uses short ones has them renewed by then."""
CHECK = "certificate"
ADVICE = "renew it, then its file is read without a restart (deploy/README.md, Certificates)"


def examine_ours(driver: Driver) -> list[Finding]:
    """Of the files in the settings."""
    found = driver.certificates() if isinstance(driver, Certified) else {}
    return [_finding(f"our {name}", validity) for name, validity in found.items()]


async def examine_theirs(driver: Driver) -> list[Finding]:
    """Of the servers that answer by TLS; of others the other checks tell."""
    found = await driver.server_certificates() if isinstance(driver, Certified) else {}
    return [_finding(address, validity) for address, validity in found.items()]


def _finding(who: str, validity: Validity) -> Finding:
    left = validity.end - clock.wall()
    text = f"{who} ends in {duration(left)}" if left > 0 else f"{who} has ended {duration(-left)} ago"
    if left < min(SOON, SHARE * (validity.end - validity.begin)):
        return Finding.warning(CHECK, text, ADVICE)
    return Finding.ok(CHECK, text)
