"""Which process starts the ranks; tests/integration/test_ranks.py starts them."""

from __future__ import annotations

import pytest

from lpt.config.schema import StrategyConfig
from lpt.training.launcher import needs_launch
from tests.support.problems import problem_of

TORCHRUN = {"LOCAL_RANK": "0", "RANK": "0", "WORLD_SIZE": "4"}
SRUN = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "1"}
SCRIPT = {"SLURM_NTASKS": "2", "SLURM_JOB_NAME": "train"}  # --ntasks=2


@pytest.fixture(autouse=True)
def no_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*TORCHRUN, *SRUN, *SCRIPT, "SLURM_NTASKS_PER_NODE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("environment", "devices", "nodes", "expected"),
    [
        ({}, 1, 1, False),
        ({}, 4, 1, True),
        ({"SLURM_STEP_NUM_TASKS": "1"}, 4, 1, True),
        (TORCHRUN, 4, 1, False),
        (TORCHRUN, 2, 2, False),
        (SRUN, 2, 2, False),
        ({}, 2, 2, "strategy.num_nodes"),
        (TORCHRUN, 2, 1, "strategy.devices"),
        (SRUN, 4, 2, "strategy.num_nodes"),
        (SCRIPT, 1, 1, "SLURM_NTASKS"),
        (SCRIPT | SRUN, 4, 1, "SLURM_NTASKS"),
        (SCRIPT, 2, 1, True),
        (SCRIPT | TORCHRUN, 4, 1, False),
        (SCRIPT | {"SLURM_NTASKS": "1"}, 1, 1, False),
        (SCRIPT | {"SLURM_NTASKS_PER_NODE": "2"}, 1, 1, False),
        (SCRIPT | {"SLURM_JOB_NAME": "interactive"}, 1, 1, False),
    ],
)
def test_who_starts_the_ranks(
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    devices: int,
    nodes: int,
    expected: bool | str,
) -> None:
    """A plain command starts its own; a different number of ranks than configured is refused."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    strategy = StrategyConfig("ddp", "cpu", devices, nodes)
    if isinstance(expected, bool):
        assert needs_launch(strategy) == expected
        return
    assert problem_of(lambda: needs_launch(strategy)).where == expected
