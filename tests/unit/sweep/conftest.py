"""Fixtures of the tests of sweeps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import initialize_config_dir

from lpt.config.compose import register
from tests.support.configs import CONF
from tests.support.sweeps import FakeSweep


@pytest.fixture
def local(checkpoints: dict[str, Path]) -> Iterator[list[str]]:
    """Overrides for the tiny model of four layers, within Hydra's context."""
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield ["model=local", f"model.path={checkpoints['masked']}", "data.max_length=64"]


@pytest.fixture
def sweep(checkpoints: dict[str, Path], toy_data: Path, tmp_path: Path) -> FakeSweep:
    """Sweeps with fake jobs over the toy data."""
    local = ("model=local", f"model.path={checkpoints['masked']}", f"data.path={toy_data}")
    return FakeSweep(local, tmp_path / "sweep")
