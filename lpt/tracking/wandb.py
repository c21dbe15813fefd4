"""Weights & Biases: checks before a run, and its curves, predictions and adapter.

wandb is imported where it is used: it is optional and slow.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lpt.config.extras import check_extra
from lpt.config.schema import WandbConfig
from lpt.errors import Problems, RunError
from lpt.files import write_atomically
from lpt.runs.record import RunRecord
from lpt.runs.run_dir import ADAPTER, is_global_zero

if TYPE_CHECKING:
    from lightning.pytorch.loggers import WandbLogger

logger = logging.getLogger(__name__)
_STEP = "trainer/global_step"


def check_wandb(config: WandbConfig, problems: Problems) -> None:
    """Note what would make W&B fail later: no package, contradictory modes, no key."""
    if not config.enabled or not is_global_zero():
        return
    if not check_extra("wandb", "logger.wandb.enabled", problems):
        return
    import wandb

    key = "logger.wandb.mode"
    try:
        ambient = wandb.setup().settings.mode
    except ValueError as error:  # pydantic's, of a variable or of W&B's settings file
        problems.add("WANDB_*", str(error).replace("\n", " "), "valid settings of W&B")
        return
    chosen = config.mode or ambient
    if chosen != ambient and (ambient != "online" or os.environ.get("WANDB_MODE")):
        given = f"{chosen}, but WANDB_MODE or the W&B settings file says {ambient}"
        hint = "unset WANDB_MODE, or undo `wandb offline` with `wandb online`"
        problems.add(key, given, f"{ambient}, or null to use that mode", hint)
    elif chosen == "online":
        try:
            if wandb.login(prompt=False, verify=False):
                return
            reason = "no W&B key was found"
        except wandb.Error as error:
            reason = str(error)
        expected = "a key (`wandb login`, or WANDB_API_KEY), or offline"
        hint = "log in once, or set logger.wandb.mode=offline and run `wandb sync` later"
        problems.add(key, f"online, but {reason}", expected, hint)


def build_wandb_logger(config: WandbConfig, run_dir: Path, resolved: dict[str, Any]) -> WandbLogger:
    """A logger whose W&B run has started on rank 0: what is refused is refused before training.

    Raises:
        RunError: W&B refuses the run.
    """
    from lightning.pytorch.loggers import WandbLogger  # slow; checking the settings needs none

    run = None
    if is_global_zero():
        run = start_run(config, run_dir, run_dir.name, resolved)
        # All curves are drawn over Lightning's optimizer steps instead of W&B's count of calls.
        run.define_metric(_STEP)
        run.define_metric("*", step_metric=_STEP, step_sync=True)
    return WandbLogger(save_dir=run_dir, project=config.project, experiment=run)


def start_run(config: WandbConfig, folder: Path, name: str, resolved: Mapping[str, Any]) -> Any:
    """Start a W&B run, or resume the one that was started in this folder.

    Raises:
        RunError: The server cannot be reached, or refuses the key or the project.
    """
    import wandb

    try:
        return wandb.init(
            project=config.project,
            entity=config.entity,
            group=config.group,
            job_type=config.job_type,
            tags=list(config.tags),
            name=name,
            id=_run_id(folder),
            resume="allow",
            mode=config.mode,  # type: ignore[arg-type]  # one of its literals
            dir=str(folder.resolve()),
            config=dict(resolved),
            # The URL of a git remote may hold a token; metrics.json has the revision anyway.
            settings=wandb.Settings(disable_git=True, save_code=False),
        )
    except wandb.Error as error:
        raise RunError(
            f"wandb.init failed: {error}\n"
            "Fix this, or set logger.wandb.mode=offline and upload the run later (wandb sync)."
        ) from error


def _run_id(folder: Path) -> str:
    """Id of the W&B run, the same for every start of this run."""
    file = folder / "wandb" / "lpt-run-id"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        # W&B's own agent assigns an id to the run.
        assigned = os.environ.get("WANDB_RUN_ID") if "WANDB_SWEEP_ID" in os.environ else None
        write_atomically(file, assigned or secrets.token_hex(4))
    return file.read_text(encoding="utf-8")


def log_outputs(
    run: Any,
    run_dir: Path,
    record: RunRecord,
    predictions: Mapping[str, Mapping[str, Sequence[str]]],
) -> None:
    """Log the predictions for each test set as a table, and the adapter as an artifact.

    W&B identifies both by content: logging them again after an interruption adds no version.
    """
    import wandb

    for name, columns in predictions.items():
        rows = [list(row) for row in zip(*columns.values(), strict=True)]
        with warn_on_error(f"the predictions of {name}"), staging_in(run_dir):
            run.log({f"predictions/{name}": wandb.Table(columns=list(columns), data=rows)})
    with warn_on_error("the adapter"), staging_in(run_dir):
        metadata = record.model_dump(include={"backbone", "dev", "test", "selection"})
        metadata |= {key: record.config[key] for key in ("prompt", "seed")}
        metadata["task"] = record.config["task"]["name"]
        artifact = wandb.Artifact(f"adapter-{run.id}", type="adapter", metadata=metadata)
        # Immutable: W&B uploads the files from the run folder instead of copying them first.
        artifact.add_dir(str((run_dir / ADAPTER).resolve()), policy="immutable")
        run.log_artifact(artifact)


def finish(*, failed: bool) -> None:
    """Upload what is left and close the W&B run of this process, if there is one."""
    import wandb

    try:
        wandb.finish(exit_code=int(failed))
    except Exception as error:  # whatever wandb raises when its service has died
        _warn("the last records", error)
        with suppress(Exception):
            wandb.teardown()  # otherwise the next run would ask for that service


@contextmanager
def warn_on_error(what: str) -> Iterator[None]:
    """Warn of an error instead of raising it: W&B must not cost the results."""
    try:
        yield
    except Exception as error:  # whatever wandb raises
        _warn(what, error)


def _warn(what: str, error: Exception) -> None:
    logger.warning("Could not send %s to W&B (%s: %s).", what, type(error).__name__, error)


@contextmanager
def staging_in(folder: Path) -> Iterator[None]:
    """Keep files that wait for `wandb sync` in this folder instead of the user's home."""
    name = "WANDB_DATA_DIR"
    before = os.environ.get(name)
    os.environ.setdefault(name, str((folder / "wandb" / "data").resolve()))
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
