"""Going on with an interrupted run so that it ends as if it had not been interrupted.

A checkpoint holds the trained part, optimizer, schedule, the place in the training order, the state
of every random number generator, the dev history, what selects, and what was measured. Steps after
the last checkpoint are done again, and come out the same.
"""

from __future__ import annotations

import logging
import random
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from lpt.config.schema import Config
from lpt.data.split_file import SPLIT
from lpt.errors import PREEMPTED, ConfigError, Problems, config_error
from lpt.report.check import read_metrics
from lpt.runs.json_records import ROWS, read_json
from lpt.runs.record import CONFIG, FINISHED
from lpt.runs.run_dir import resume_override
from lpt.training.checkpoints import FOLDER, LAST, latest_state, saved
from lpt.training.distributed import gather

logger = logging.getLogger(__name__)
_NO_YAML = (YAMLError, OmegaConfBaseException)
_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
# What may be set otherwise without changing what comes out.
_FREE = (
    *("run_dir", "resume", "overwrite", "dry_run", "logger", "cache", "sweep"),
    "data.num_workers",
)
_FREE_PATHS = ("data.path", "data.root", "data.verify")  # the data themselves are compared


@dataclass(frozen=True)
class ResumePoint:
    """What an earlier start of a run left.

    Attributes:
        checkpoint: The last state it saved.
        step: Optimizer steps done by then.
    """

    checkpoint: Path
    step: int


def finished_metrics(config: Config) -> dict[str, Any] | None:
    """What metrics.json says if the run to be resumed has ended already.

    Raises:
        ConfigError: It is damaged.
    """
    folder = config.run_dir if config.resume == "auto" else config.resume
    if folder is None:
        return None
    file = Path(folder) / FINISHED
    if not file.exists():
        return None
    try:
        return read_metrics(file)
    except ConfigError as error:
        given = f"{file} is damaged ({error.problems[0].given})"
        hint = "remove that file: the end of the run is made again"
        raise config_error("resume", given, f"a whole {FINISHED}", hint) from error


def find_resume_point(
    config: Config, resolved: Config, split: Mapping[str, Any]
) -> ResumePoint | None:
    """The state from which a run goes on; None if it begins.

    Args:
        config: With `resume` set or not.
        resolved: The same with every default filled in.
        split: What split.json is to say of the sets.

    Raises:
        ConfigError: The earlier start had other settings or data, or its checkpoints are damaged.
    """
    if config.resume is None or config.run_dir is None:
        return None
    run_dir = Path(config.run_dir)
    checkpoints = run_dir / FOLDER
    if not saved(checkpoints):
        return None
    _refuse_other(run_dir, resolved, split)
    return ResumePoint(*latest_state(checkpoints))


def _refuse_other(run_dir: Path, resolved: Config, split: Mapping[str, Any]) -> None:
    problems = Problems()
    now: Any = OmegaConf.to_container(OmegaConf.structured(resolved))
    file = run_dir / CONFIG
    try:
        begun = OmegaConf.to_container(OmegaConf.load(file))
        lost = now.keys() - (begun if isinstance(begun, dict) else {}) - set(_FREE)
        if lost:
            raise ValueError(f"it lacks {', '.join(sorted(lost))}")
        file = run_dir / SPLIT
        begun_split = read_json(file, ROWS)["sha256"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError, *_NO_YAML) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        given = f"{file} is damaged or missing ({reason})"
        raise config_error(
            "resume", given, f"a run with {CONFIG} and {SPLIT}", "another run_dir"
        ) from error
    before, after = _flat(begun), _flat(now)
    for key in sorted(before.keys() | after.keys()):
        free = key.startswith(_FREE) or key in _FREE_PATHS
        if not free and before.get(key) != after.get(key):
            was = repr(before[key]) if key in before else f"none (it is not in {run_dir / CONFIG})"
            problems.add(
                key,
                f"{after.get(key)!r}, but the run was begun with {was}",
                "the settings it was begun with",
                "another run_dir for other settings",
            )
    if begun_split != split["sha256"]:
        given = "the run was begun on other rows or texts"
        problems.add("resume", given, f"the examples of {run_dir / SPLIT}")
    problems.raise_if_any()


def _flat(node: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(node, Mapping):
        return {prefix.removesuffix("."): node}
    flat: dict[str, Any] = {}
    for key, value in node.items():
        flat |= _flat(value, f"{prefix}{key}.")
    return flat


class RandomState(Callback):
    """Keeps the state of all random number generators, of every rank, in checkpoints."""

    def __init__(self) -> None:
        self.saved: list[dict[str, Any]] | None = None

    def state_dict(self) -> dict[str, Any]:
        """For checkpoints; all ranks call it."""
        return {"ranks": gather(_random_state())}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From a checkpoint; it takes effect when training goes on."""
        self.saved = state_dict["ranks"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A run that had stopped early does not go on."""
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, EarlyStopping) and callback.wait_count >= callback.patience:
                trainer.should_stop = True

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Here, because setting up the training draws numbers, too."""
        if self.saved is not None:
            _set_random_state(self.saved[trainer.global_rank % len(self.saved)])
            self.saved = None


def _random_state() -> dict[str, Any]:
    # Plain types: checkpoints are read without pickle's freedom.
    version, numbers, gauss = random.getstate()
    legacy: Any = np.random.get_state(legacy=False)
    return {
        "python": [version, list(numbers), gauss],
        "numpy": {
            "bit_generator": legacy["bit_generator"],
            "key": legacy["state"]["key"].tolist(),
            "pos": legacy["state"]["pos"],
            "has_gauss": legacy["has_gauss"],
            "gauss": legacy["gauss"],
        },
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def _set_random_state(state: Mapping[str, Any]) -> None:
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    legacy = state["numpy"]
    key = np.array(legacy["key"], np.uint32)
    np.random.set_state(
        (legacy["bit_generator"], key, legacy["pos"], legacy["has_gauss"], legacy["gauss"])
    )
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


class Preemption(Callback):
    """Ends a run with a checkpoint when a cluster asks for the machine.

    SIGTERM and SIGUSR1 are answered after the optimizer step at hand: the state is saved as last
    checkpoint, and the process exits with status 75; the same command with resume goes on. Before
    and after the training there is nothing to save, and the process ends at once.

    Args:
        folder: Where the checkpoints are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: int | None = None
        self.training = False

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Answer the signals within the block."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._answer) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _answer(self, number: int, _: FrameType | None) -> None:
        self.asked = number
        if not self.training:
            self._exit()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on there is a state to be saved."""
        self.training = True

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on the checkpoints say all."""
        self.training = False
        if self.asked is not None:
            self._exit()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Between optimizer steps, see whether the machine is asked for.

        Not where an evaluation is due: it would be passed over. Its end saves the state as well.
        """
        batches = trainer.fit_loop.epoch_loop.total_batch_idx + 1
        every = trainer.val_check_batch
        due = trainer.is_last_batch or (every is not None and batches % every == 0)
        if due or (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        asked = self.asked is not None
        if trainer.world_size > 1:
            asked = trainer.strategy.reduce_boolean_decision(asked, all=False)
        if asked:
            trainer.save_checkpoint(self.folder / LAST)
            logger.info("Saved at step %d.", trainer.global_step)
            self._exit()

    def _exit(self) -> NoReturn:
        name = signal.Signals(self.asked).name if self.asked is not None else "a signal"
        more = resume_override(self.folder.parent)
        logger.warning("Stopped by %s; the same command with %s goes on.", name, more)
        raise SystemExit(PREEMPTED)
