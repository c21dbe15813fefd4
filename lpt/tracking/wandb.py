"""Weights & Biases: checks before a run, its curves, predictions and adapter; a sweep's summary.

wandb is imported where it is used: it is optional and slow.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from statistics import fmean
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
SUMMARY_JOB = "sweep-summary"
"""Job type of the summary of a sweep."""
_STEP = "trainer/global_step"


def check_wandb(config: WandbConfig, problems: Problems) -> None:
    """Add a problem if the package or, in online mode, the key or the connection is missing."""
    if not config.enabled or not is_global_zero():
        return
    if not check_extra("wandb", "logger.wandb.enabled", problems):
        return
    import wandb

    try:
        ambient = wandb.setup().settings.mode
        chosen = config.mode or ambient
        if chosen != ambient and (ambient != "online" or "WANDB_MODE" in os.environ):
            reason = f"WANDB_MODE or the W&B settings file says {ambient}"
        elif chosen != "online" or wandb.login(prompt=False, verify=False):
            return
        else:
            reason = "no W&B key was found"
    except (ValueError, wandb.Error) as error:  # an invalid variable or settings file; a bad key
        chosen, reason = config.mode or "online", str(error).replace("\n", " ")
    expected = "a key (`wandb login`, or WANDB_API_KEY), or offline; null for the mode of W&B"
    hint = "log in, unset WANDB_MODE, or set logger.wandb.mode=offline and run `wandb sync` later"
    problems.add("logger.wandb.mode", f"{chosen}, but {reason}", expected, hint)


def build_wandb_logger(config: WandbConfig, run_dir: Path, resolved: dict[str, Any]) -> WandbLogger:
    """A logger whose W&B run has started on rank 0: what is refused is refused before training.

    Raises:
        RunError: W&B refuses the run.
    """
    from lightning.pytorch.loggers import WandbLogger  # slow; checking the settings needs none

    run = None
    if is_global_zero():
        run = _start_run(config, run_dir, run_dir.name, resolved)
        # All curves are drawn over Lightning's optimizer steps instead of W&B's count of calls.
        run.define_metric(_STEP)
        run.define_metric("*", step_metric=_STEP, step_sync=True)
    return WandbLogger(save_dir=run_dir, project=config.project, experiment=run)


def _start_run(config: WandbConfig, folder: Path, name: str, resolved: Mapping[str, Any]) -> Any:
    """Start a W&B run, or resume the one that was started in this folder."""
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

    shares = {f"p({label})" for label in record.config["task"]["labels"]}
    for name, cells in predictions.items():
        columns: dict[str, Sequence[str | float]] = {
            column: [float(cell) for cell in found] if column in shares else found
            for column, found in cells.items()
        }
        rows = [list(row) for row in zip(*columns.values(), strict=True)]
        with _warn_on_error(f"the predictions of {name}"), _staging_in(run_dir):
            run.log({f"predictions/{name}": wandb.Table(columns=list(columns), data=rows)})
    with _warn_on_error("the adapter"), _staging_in(run_dir):
        metadata = record.model_dump(include={"backbone", "dev", "test", "selection"})
        metadata |= {key: record.config[key] for key in ("method", "prompt", "seed")}
        metadata["task"] = record.config["task"]["name"]
        artifact = wandb.Artifact(f"adapter-{run.id}", type="adapter", metadata=metadata)
        # Immutable: W&B uploads the files from the run folder instead of copying them first.
        artifact.add_dir(str((run_dir / ADAPTER).resolve()), policy="immutable")
        run.log_artifact(artifact)


@contextmanager
def finished_run(config: WandbConfig) -> Iterator[None]:
    """Upload what is left and close the W&B run of this process at the end of the block."""
    failed = True
    try:
        yield
        failed = False
    finally:
        if config.enabled:
            import wandb

            with _warn_on_error("the last records"):
                wandb.finish(exit_code=int(failed))
            with suppress(Exception):
                wandb.teardown()  # the next run needs a new service if this one has died


def log_sweep(
    config: WandbConfig,
    folder: Path,
    rows: Sequence[Mapping[str, Any]],
    *,
    score: str,
    figures: Sequence[Path] = (),
    resolved: Mapping[str, Any] | None = None,
) -> None:
    """Log the results of a sweep as one W&B run; a resumed sweep updates the same run.

    The run has the table `sweep/results`; of several layers, the mean score of each method at each
    layer as `sweep/layer_curve`; and each figure as `sweep/NAME`. An error is only a warning.

    Args:
        config: The W&B settings; nothing happens if it is off.
        folder: Folder of the sweep, whose name is that of the run and, unless the settings name
            one, of the group.
        rows: Results by column, one row per setting or job.
        score: Column with the score of the layer curve.
        figures: PNG files.
        resolved: Settings that all jobs share, as plain types.
    """
    if not config.enabled:
        return
    with _warn_on_error("the summary of the sweep"):
        import wandb

        config = replace(config, group=config.group or folder.name, job_type=SUMMARY_JOB)
        columns = list(dict.fromkeys(column for row in rows for column in row))
        data = [[row.get(column) for column in columns] for row in rows]
        run = _start_run(config, folder, folder.name, resolved or {})
        with run, _staging_in(folder):
            table = wandb.Table(columns=columns, data=data, allow_mixed_types=True)
            logged: dict[str, Any] = {"sweep/results": table}
            if curve := _layer_curve(rows, score):
                points = wandb.Table(["layer", score, "method"], curve)
                chart = wandb.plot.line(
                    points, "layer", score, stroke="method", title=f"{score} by layer"
                )
                logged["sweep/layer_curve"] = chart
            logged |= {f"sweep/{figure.stem}": wandb.Image(str(figure)) for figure in figures}
            run.log(logged)


def _layer_curve(rows: Sequence[Mapping[str, Any]], score: str) -> list[list[Any]]:
    """Layer, mean score and method, in order, of the methods with several layers.

    Rows without a score are left out.
    """
    scores: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row.get(score) is not None:
            method = scores[row["prompt"] or row["method"]]
            method[int(row["layer"])].append(float(row[score]))
    return [
        [layer, fmean(found[layer]), method]
        for method, found in scores.items()
        for layer in sorted(found)
        if len(found) > 1
    ]


@contextmanager
def _warn_on_error(what: str) -> Iterator[None]:
    """Warn of an error instead of raising it: W&B must not cost the results."""
    try:
        yield
    except Exception as error:  # whatever wandb raises
        kind = type(error).__name__
        logger.warning("Could not send %s to W&B (%s: %s).", what, kind, error)


@contextmanager
def _staging_in(folder: Path) -> Iterator[None]:
    """Keep files that wait for `wandb sync` in this folder instead of the user's home."""
    in_home = "WANDB_DATA_DIR" not in os.environ
    os.environ.setdefault("WANDB_DATA_DIR", str((folder / "wandb" / "data").resolve()))
    try:
        yield
    finally:
        if in_home:
            del os.environ["WANDB_DATA_DIR"]
