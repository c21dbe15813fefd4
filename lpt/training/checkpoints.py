"""Checkpoints of a run: written whole, read with their checksums, found again by a later start."""

from __future__ import annotations

import io
import logging
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from lpt.errors import RunError, config_error
from lpt.files import write_atomically

logger = logging.getLogger(__name__)
FOLDER = "checkpoints"
LAST, BEST = "last.ckpt", "best.ckpt"
_PARTS = {
    "global_step": int,
    "state_dict": dict,
    "callbacks": dict,
    "loops": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
}


class Checkpoint(ModelCheckpoint):
    """The state after a dev evaluation, in one file that is replaced.

    It knows its file again where the folder of the run was moved.

    Args:
        file: `checkpoints/best.ckpt` or `checkpoints/last.ckpt` of a run.
        monitor: Metric whose highest value is kept, the earliest of equals; None: the latest state.
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
        """From a checkpoint."""
        here = str(self.dirpath)

        def moved(path: str) -> str:
            return str(Path(here) / Path(path).name) if path else path

        files = ("best_model_path", "last_model_path", "kth_best_model_path")
        best = {moved(path): score for path, score in state_dict["best_k_models"].items()}
        found = {name: moved(state_dict[name]) for name in files}
        super().load_state_dict(state_dict | found | {"dirpath": here, "best_k_models": best})


class AtomicCheckpointIO(TorchCheckpointIO):
    """Replaces a checkpoint at once, and refuses one of which a byte is wrong.

    Lightning writes it elsewhere and moves it: across file systems, a copy that can be interrupted.

    Raises:
        OSError: A checkpoint cannot be written; the one before is as it was.
        RunError: One cannot be read.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Write a checkpoint; megabytes, because it lacks the frozen weights."""
        content = io.BytesIO()
        torch.save(checkpoint, content)
        file = Path(path)
        file.parent.mkdir(exist_ok=True)  # not the run's: a run whose folder is gone is over
        write_atomically(file, content.getvalue())

    def load_checkpoint(self, path: Any, *_: Any, **__: Any) -> dict[str, Any]:
        """Read a checkpoint into the memory of the CPU."""
        try:
            return read_checkpoint(Path(path))
        except ValueError as error:
            raise RunError(
                f"{path} was changed or removed while the run went on ({error}). The state that it "
                "held is lost: start the run anew with overwrite=true."
            ) from error


def read_checkpoint(file: Path) -> dict[str, Any]:
    """What a checkpoint holds, after its checksums: torch writes them, but does not look at them.

    Raises:
        ValueError: It is missing or damaged, or holds more than tensors and plain types.
    """
    try:
        with zipfile.ZipFile(file) as records:
            # torch packs nothing: what would be unpacked to more than the file is not its own.
            packed = [r.filename for r in records.infolist() if r.compress_type]
            damaged = packed or records.testzip()
        if damaged:
            raise ValueError(f"{damaged} in it is damaged")
        content: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        for name, kind in _PARTS.items():
            if type(content[name]) is not kind:
                raise TypeError(f"{name} is no {kind.__name__}")
        if not all(isinstance(of, torch.Tensor) for of in content["state_dict"].values()):
            raise TypeError("state_dict holds more than tensors")
        _ = _has_best(content)
    except Exception as error:  # whatever a damaged file makes the readers raise
        raise ValueError(next(iter(str(error).splitlines()), type(error).__name__)) from error
    return content


def saved(folder: Path) -> list[Path]:
    """The checkpoints that are in a folder."""
    return [file for file in (folder / BEST, folder / LAST) if file.is_file()]


def latest_state(folder: Path) -> tuple[Path, int]:
    """The furthest whole checkpoint in a folder, and the step it was saved at.

    Raises:
        ConfigError: None is whole, or the best state that it knows of is lost.
    """
    whole: dict[Path, dict[str, Any]] = {}
    for file in saved(folder):
        try:
            whole[file] = read_checkpoint(file)
        except ValueError as error:
            logger.warning("%s cannot be read (%s).", file, error)
    hint = f"remove {folder} to start anew"
    if not whole:
        given = f"{folder.parent} has no checkpoint that can be read"
        raise config_error("resume", given, "a whole checkpoint", hint)
    # The best one is further where a run was killed between writing the two.
    latest = max(whole, key=lambda file: (whole[file]["global_step"], file.name == LAST))
    if folder / BEST not in whole and _has_best(whole[latest]):
        given = f"{folder / BEST}, the state that is to be tested, is missing or damaged"
        raise config_error("resume", given, "a whole checkpoint", hint)
    return latest, int(whole[latest]["global_step"])


def _has_best(checkpoint: dict[str, Any]) -> bool:
    """Whether a dev evaluation came before it."""
    named = (state.get("best_model_path") for state in checkpoint["callbacks"].values())
    return any(Path(path).name == BEST for path in named if path)
