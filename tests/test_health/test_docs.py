"""docs/health.md tells what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.health import leader_board, poller

from cluster_lock.health import Board
from cluster_lock.health.board import NoPeers
from cluster_lock.health.document import health
from cluster_lock.health.metrics import ORIGINS, BoardCollector
from cluster_lock.values import EndCode


class WithCertificates(NoPeers):
    def certificates(self) -> dict[str, float]:
        return {"ca": 2e9, "cert": 1.9e9}


@pytest.fixture
def text(checkout: Path) -> str:
    return (checkout / "docs" / "health.md").read_text(encoding="utf-8")


@pytest.fixture
def board() -> Board:
    """One that has something to say in every metric."""
    board = leader_board(worker=True)
    board.pollers.tell([poller(errors={"network": 1, "conflict": 1})])
    board.peers = WithCertificates()
    return board


def test_every_metric_is_told_with_its_labels(text: str, board: Board) -> None:
    """Each metric stands there with exactly its labels, and none that does not exist."""
    told = {}
    for line in text.splitlines():
        if line.startswith("| `cluster_lock_"):
            _, names, labels, *_ = line.split("|")
            for name in re.findall(r"`(\w+)`", names):
                told[name] = {label.strip() for label in labels.split(",") if label.strip()}
    found = {}
    for family in BoardCollector(board).collect():
        name = family.name + {"counter": "_total", "info": "_info"}.get(family.type, "")
        found[name] = {label for sample in family.samples for label in sample.labels} - {"le"}
    assert told == found


def test_every_field_is_told(text: str, board: Board) -> None:
    """Each field of /health stands in its table."""
    table = text.partition("## /health")[2].partition("## Metrics")[0]
    told: set[str] = set()
    for line in table.splitlines():
        if line.startswith("| `"):
            told |= set(re.findall(r"`(\w+)`", line.split("|")[1]))
    assert told == set(health(board))


def test_every_reason_is_told(text: str) -> None:
    """Each word that a transition may be counted under is named."""
    labels = {*EndCode, *(origin.replace(" ", "_") for origin in ORIGINS)}
    assert [label for label in labels if f"`{label}`" not in text.replace("\n", " ")] == []


def test_what_is_deployed_asks_for_what_is_there(checkout: Path, board: Board) -> None:
    """Every metric in a dashboard or an alert exists."""
    found = set()
    for family in BoardCollector(board).collect():
        found |= {sample.name for sample in family.samples}
    for path in (checkout / "deploy").rglob("*"):
        if path.parent.name in ("grafana", "prometheus"):
            asked = set(re.findall(r"\bcluster_lock_[a-z0-9_]+", path.read_text(encoding="utf-8")))
            assert asked <= found, path
