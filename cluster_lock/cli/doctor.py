"""`cluster-lock doctor`: would a bot with these settings lead, and if not, what is to be done."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from .findings import Finding, Severity
from .options import add_settings_options, settings_from
from .output import add_json_option, opened, print_json, run
from .tables import Line, Part, show

STYLES = {Severity.OK: "green", Severity.WARNING: "yellow", Severity.PROBLEM: "red"}


def add(commands: Any) -> None:
    parser: argparse.ArgumentParser = commands.add_parser(
        "doctor",
        help="check the settings, the backend, the rights, and Telegram",
        description="Check what a bot with these settings would need, by doing it: on a lock of its own, which is"
        " deleted again. Never asks Telegram for updates, so no poller is disturbed. Ends with 0, or with the"
        " code of the first problem: 69 backend, 77 rights, 78 settings or token, 1 anything else. Warnings are none.",
        examples=("", "--no-telegram --backend etcd"),
    )
    parser.add_argument("--no-telegram", action="store_true", help="do not ask Telegram about the token")
    add_json_option(parser)
    add_settings_options(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    findings = run(_examine(arguments))
    if arguments.json:
        print_json({"ok": not _code(findings), "checks": [asdict(finding) for finding in findings]})
    else:
        show([line for finding in findings for line in _lines(finding)])
    return _code(findings)


async def _examine(arguments: argparse.Namespace) -> list[Finding]:
    from cluster_lock.errors import ClusterLockError, ConfigError

    from .doctor_backend import clock_source, examine_backend
    from .doctor_certificates import examine_ours, examine_theirs
    from .doctor_telegram import examine_telegram

    try:
        settings = settings_from(arguments)
    except ConfigError as error:
        return [Finding.problem("settings", problem, error.exit_code) for problem in error.problems]
    except ClusterLockError as error:  # a file in the working directory that is not ours
        return [Finding.problem("settings", str(error), error.exit_code)]
    origin = f"instance {settings.instance}, prefix {settings.prefix}"
    findings = [Finding.ok("settings", f"backend {settings.backend}, {origin}"), clock_source()]
    try:
        async with opened(settings) as driver:
            findings += examine_ours(driver)
            findings += await examine_backend(driver, settings)
            findings += await examine_theirs(driver)
            if not arguments.no_telegram:
                findings += await examine_telegram(driver, settings)
    except ClusterLockError as error:  # of making or opening the driver
        findings.append(Finding.problem("backend", str(error), error.exit_code))
    return findings


def _code(findings: Sequence[Finding]) -> int:
    return next((finding.code for finding in findings if finding.outcome is Severity.PROBLEM), 0)


def _lines(finding: Finding) -> list[Part]:
    first = Line(f"{finding.outcome:<8} {finding.check:<11} {finding.text}", STYLES[finding.outcome])
    return [first, Line(f"{'':<20} {finding.advice}")] if finding.advice else [first]
