"""Resuming an interrupted run so that it ends as if it had not been interrupted.

A checkpoint holds the trained parameters, optimizer, schedule, position in the training order, the
state of every random number generator, the dev history, the selection so far and what was measured.
Steps after the last checkpoint are repeated, with the same result.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from lpt.config.resolve import flatten, to_dict
from lpt.config.schema import Config
from lpt.data.split_file import SPLIT_FILE, read_split_file
from lpt.errors import Problems
from lpt.runs.record import RunRecord
from lpt.runs.run_dir import CONFIG_FILE, METRICS_FILE, existing_checkpoints
from lpt.training.checkpoints import ResumePoint, latest_checkpoint

# May differ between the starts of a run without changing its result.
_FREE = (
    *("run_dir", "resume", "overwrite", "dry_run", "logger", "cache", "data.num_workers"),
    # The examples themselves are compared.
    *("data.path", "data.root", "data.verify", "task.default_path"),
)


def find_finished_run(config: Config, split_sha256: str) -> RunRecord | None:
    """The record of the run to be resumed, if it has finished already.

    Raises:
        ConfigError: The record is damaged, or the run had other settings or data.
    """
    if config.resume is None or config.run_dir is None:
        return None
    run_dir = Path(config.run_dir)
    if not (run_dir / METRICS_FILE).exists():
        return None
    record = RunRecord.read(run_dir)
    _check_same(config, record.config, split_sha256 == record.split.sha256)
    return record


def find_resume_point(config: Config, split_sha256: str) -> ResumePoint | None:
    """The checkpoint from which a run is resumed; None if it starts from scratch.

    Raises:
        ConfigError: The run had other settings or data, or its checkpoints are damaged.
    """
    if config.resume is None or config.run_dir is None:
        return None
    run_dir = Path(config.run_dir)
    if not existing_checkpoints(run_dir):
        return None
    started_with: Any = OmegaConf.to_container(OmegaConf.load(run_dir / CONFIG_FILE))
    started_on = read_split_file(run_dir / SPLIT_FILE).sha256
    _check_same(config, started_with, split_sha256 == started_on)
    return latest_checkpoint(run_dir)


def _check_same(config: Config, started_with: Mapping[str, Any], same_split: bool) -> None:
    """Compare the settings of a run with those that it is to be resumed with."""
    problems = Problems()
    before, now = flatten(started_with), flatten(to_dict(config))
    for key in sorted(before.keys() | now.keys()):
        if key.startswith(_FREE) or before.get(key) == now.get(key):
            continue
        problems.add(
            key,
            f"{now.get(key)!r}, but the run was started with {before.get(key)!r}",
            "the settings that the run was started with",
            "another run_dir for other settings",
        )
    if not same_split:
        given = "the run was started on other rows or texts"
        problems.add("resume", given, f"the examples of {config.run_dir}/{SPLIT_FILE}")
    problems.raise_if_any()
