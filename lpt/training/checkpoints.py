"""Checkpoints of a run: written atomically, verified when read, found again on resume."""

from __future__ import annotations

import io
import logging
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from lpt.errors import RunError, config_error
from lpt.files import write_atomically
from lpt.runs.run_dir import BEST, CHECKPOINTS, LAST, existing_checkpoints

logger = logging.getLogger(__name__)


class Checkpoint(ModelCheckpoint):
    """Keeps one file, replaced after a dev evaluation.

    Paths in its state are relative to the folder of the run, which may have been moved.

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
        """Restore from a checkpoint, with the paths of this run's folder."""

        def moved(path: str) -> str:
            return str(Path(str(self.dirpath)) / Path(path).name) if path else path

        keys = ("best_model_path", "last_model_path", "kth_best_model_path")
        paths: dict[str, Any] = {key: moved(state_dict[key]) for key in keys}
        paths["best_k_models"] = {moved(k): v for k, v in state_dict["best_k_models"].items()}
        super().load_state_dict(state_dict | paths | {"dirpath": self.dirpath})


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
