"""The wheel holds the library, all of it, and nothing else."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest

import cluster_lock


@pytest.fixture
def wheel() -> importlib.metadata.Distribution:
    try:
        found = importlib.metadata.distribution("cluster-lock")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("runs where the wheel is installed: in tox")
    if (found.read_text("direct_url.json") or "").find('"editable"') >= 0:
        pytest.skip("runs where the wheel is installed, not the checkout: in tox")
    return found


def test_installs_nothing_but_the_library(wheel: importlib.metadata.Distribution) -> None:
    """No file of the wheel lands outside of the library's own folders: a `bot` would hijack those of its users."""
    tops = {file.parts[0] for file in wheel.files or () if file.parts[0] != ".."}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"cluster_lock"}


def test_ships_the_example_configuration_and_the_type_marker(wheel: importlib.metadata.Distribution) -> None:
    """The example configuration is in the wheel, and type checkers find the marker."""
    assert Path(str(wheel.locate_file("cluster_lock/config/example.yaml"))).exists()
    assert Path(str(wheel.locate_file("cluster_lock/py.typed"))).exists()


def test_version_has_one_source(wheel: importlib.metadata.Distribution) -> None:
    """The version of the wheel is the one that the library says."""
    assert wheel.version == cluster_lock.__version__


def test_alternatives_are_not_in_all(wheel: importlib.metadata.Distribution) -> None:
    """`all` never pulls in the second distribution of a module."""
    named = [text for text in wheel.requires or () if 'extra == "all"' in text or "extra == 'all'" in text]
    assert named
    assert not [text for text in named if text.startswith(("py-consul", "etcd3"))]
