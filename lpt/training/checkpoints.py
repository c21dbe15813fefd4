"""Checkpoints of a run: written atomically, verified when read, found again on resume.

A checkpoint holds the trained parameters, optimizer, schedule, position in the training order, the
state of every random number generator, the dev history, the selection so far and what was measured.
Steps after the last checkpoint are repeated, with the same result.
"""

from __future__ import annotations

import io
import logging
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from omegaconf import OmegaConf

from lpt.config.resolve import flatten, to_dict
from lpt.config.schema import Config
from lpt.data.split_file import SPLIT_FILE, SplitDescription, read_split_file
from lpt.errors import Problems, RunError, config_error
from lpt.files import write_atomically
from lpt.runs.adapter import BackboneIdentity
from lpt.runs.record import BackboneRecord, RunRecord
from lpt.runs.run_dir import (
    BEST,
    CHECKPOINTS,
    CONFIG_FILE,
    LAST,
    METRICS_FILE,
    existing_checkpoints,
)

logger = logging.getLogger(__name__)
# May differ between the starts of a run without changing its result.
_FREE = (
    *("run_dir", "resume", "overwrite", "dry_run", "logger", "cache", "data.num_workers"),
    # The examples themselves are compared, and the backbone itself.
    *("data.path", "data.root", "data.verify", "task.default_path"),
    *("model.name", "model.path", "model.revision", "model.package", "model.gguf_file"),
)


class Checkpoint(ModelCheckpoint):
    """Keeps one file, replaced after a dev evaluation.

    Args:
        file: `checkpoints/best.ckpt` or `checkpoints/last.ckpt` of a run.
        monitor: Metric whose highest value is kept (the earliest of equals); None: the last state.
    """

    def __init__(self, file: Path, monitor: str | None = None) -> None:
        super().__init__(
            dirpath=str(file.parent),
            filename=file.stem,
            monitor=monitor,
            mode="max",
            save_top_k=1,
            enable_version_counter=False,
            auto_insert_metric_name=False,
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore from a checkpoint of this run, whose folder may have been moved."""
        file, scores = f"{self.dirpath}/{self.filename}.ckpt", state_dict["best_k_models"].values()
        paths = ("best_model_path", "kth_best_model_path")
        here: dict[str, Any] = {key: file if state_dict[key] else "" for key in paths}
        here["best_k_models"] = dict(zip([file], scores, strict=False))
        super().load_state_dict(state_dict | here | {"dirpath": self.dirpath})


class AtomicCheckpointIO(TorchCheckpointIO):
    """Replaces a checkpoint atomically, and verifies its checksums when it is loaded.

    Lightning writes to a temporary folder and moves the file, which across file systems is a copy
    that can be interrupted.

    Raises:
        OSError: A checkpoint cannot be written; the previous one is unchanged.
        RunError: A checkpoint cannot be read.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Write a checkpoint: megabytes, because it holds no frozen weights."""
        content = io.BytesIO()
        torch.save(checkpoint, content)
        file = Path(path)
        file.parent.mkdir(exist_ok=True)  # but not the run folder, if that was removed
        write_atomically(file, content.getvalue())

    def load_checkpoint(self, path: Any, *_: Any, **__: Any) -> dict[str, Any]:
        """Read a checkpoint to the CPU."""
        try:
            return read_checkpoint(Path(path))
        except ValueError as error:
            raise RunError(
                f"{path} was changed or removed during the run ({error}), and the state in it is "
                "lost. Start over with overwrite=true."
            ) from error


def read_checkpoint(file: Path) -> dict[str, Any]:
    """Load a checkpoint after verifying its checksums, which torch writes but does not read.

    Raises:
        ValueError: It is missing or damaged, or holds more than tensors and plain types.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
        if damaged:
            raise ValueError(f"{damaged} in it is damaged")
        checkpoint: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files make the readers raise nearly anything
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(reason) from error
    return checkpoint


class ResumePoint(NamedTuple):
    """Where an interrupted run is resumed: its latest checkpoint, after `step` optimizer steps."""

    checkpoint: Path
    step: int


def find_earlier_run(config: Config, splits: SplitDescription) -> RunRecord | ResumePoint | None:
    """What `resume` goes on from: the record of a finished run, or the checkpoint of another one.

    None if the run starts from scratch.

    Raises:
        ConfigError: The run had other settings or data, or its record or checkpoints are damaged.
    """
    if config.resume is None or config.run_dir is None:
        return None
    run_dir = Path(config.run_dir)
    if (run_dir / METRICS_FILE).exists():
        record = RunRecord.read(run_dir)
        _check_same(config, record.config, splits)
        return record
    if not existing_checkpoints(run_dir):
        return None
    started_with: Any = OmegaConf.to_container(OmegaConf.load(run_dir / CONFIG_FILE))
    _check_same(config, started_with, splits)
    return latest_checkpoint(run_dir)


def check_same_backbone(config: Config, backbone: BackboneIdentity) -> None:
    """Compare a loaded backbone with the one that the run in `run_dir` was started with.

    Raises:
        ConfigError: Its weights, what its config makes of them, or its tokenizer differ.
    """
    run_dir = Path(str(config.run_dir))
    finished = (run_dir / METRICS_FILE).exists()
    before = RunRecord.read(run_dir).backbone if finished else BackboneRecord.read(run_dir)
    problems = Problems()
    for what in ("fingerprint", "tokenizer"):
        now, then = getattr(backbone, what), getattr(before, what)
        if now != then:
            subject = "weights or config" if what == "fingerprint" else "a tokenizer"
            given = f"{subject} with the fingerprint {now}, but the run was started with {then}"
            expected = f"a copy of {before.name}, whatever its folder"
            problems.add("model.path", given, expected, "another run_dir for another backbone")
    problems.raise_if_any()


def latest_checkpoint(run_dir: Path) -> ResumePoint:
    """The latest readable checkpoint of a run.

    Raises:
        ConfigError: None is readable, or the best one so far, which will be tested, is not.
    """
    readable: dict[Path, dict[str, Any]] = {}
    for file in existing_checkpoints(run_dir):
        try:
            readable[file] = read_checkpoint(file)
        except ValueError as error:
            logger.warning("%s cannot be read (%s).", file, error)
    expected, hint = "a readable checkpoint", f"remove {run_dir / CHECKPOINTS} to start over"
    if not readable:
        raise config_error("resume", f"no readable checkpoint in {run_dir}", expected, hint)
    # best.ckpt is later where a run was killed between writing the two.
    latest = max(readable, key=lambda file: (readable[file]["global_step"], file.name == LAST))
    best = run_dir / CHECKPOINTS / BEST
    states = readable[latest]["callbacks"].values()
    evaluated = any(Path(state.get("best_model_path") or "").name == BEST for state in states)
    if evaluated and best not in readable:
        given = f"{best}, which will be tested, is missing or damaged"
        raise config_error("resume", given, expected, hint)
    return ResumePoint(latest, readable[latest]["global_step"])


def _check_same(config: Config, started_with: Mapping[str, Any], splits: SplitDescription) -> None:
    """Compare settings and examples of a run with those that it is to be resumed with."""
    problems = Problems()
    before, now = flatten(started_with), flatten(to_dict(config))
    for key in sorted(before.keys() | now.keys()):
        if key.startswith(_FREE) or before.get(key) == now.get(key):
            continue
        given = f"{now.get(key)!r}, but the run was started with {before.get(key)!r}"
        expected = "the settings that the run was started with"
        problems.add(key, given, expected, "another run_dir for other settings")
    sets = read_split_file(Path(str(config.run_dir)) / SPLIT_FILE).sets
    changed = [
        name
        for name, now_in in splits.sets.items()  # an extra set may have been missing
        if name in sets and (now_in.sha256, now_in.rows) != (sets[name].sha256, sets[name].rows)
    ]
    if changed:
        given = f"the run was started on other rows or texts of {', '.join(changed)}"
        problems.add("resume", given, f"the examples of {config.run_dir}/{SPLIT_FILE}")
    problems.raise_if_any()
