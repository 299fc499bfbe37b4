from __future__ import annotations

from pathlib import Path

import pytest
from support.examples import Stages, stages
from support.nursery import Nursery


@pytest.fixture
def stage(nursery: Nursery, tmp_path: Path) -> Stages:
    """Where the instances of an example meet."""
    return stages(nursery, tmp_path)
