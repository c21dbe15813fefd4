"""Weights & Biases: one run a job, one summary run a sweep. Nothing else imports wandb."""

from __future__ import annotations

import logging
import os
import secrets
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import fmean
from typing import Any

from lpt.config.schema import WandbConfig
from lpt.data.tasks import Task
from lpt.errors import RunError
from lpt.files import write_atomically
from lpt.runs.record import ADAPTER, prediction_columns
from lpt.training.metrics import EvalOutput

logger = logging.getLogger(__name__)
SWEEP_SUMMARY = "sweep-summary"
LAYER = "prompt.layer"


def start_run(
    config: WandbConfig,
    folder: Path,
    *,
    name: str,
    job_type: str,
    group: str | None,
    resolved: Mapping[str, Any],
) -> Any:
    """Begin a run of the tracker, or go on with the one that was begun in the folder.

    Args:
        config: The tracker's settings.
        folder: Its files go into the folder `wandb` in here.
        name: Name that is shown.
        job_type: What kind of run it is.
        group: What it belongs to.
        resolved: The configuration as plain types.

    Raises:
        RunError: The server cannot be reached or refuses the key or project.
    """
    import wandb

    try:
        return wandb.init(
            project=config.project,
            entity=config.entity,
            group=group,
            job_type=job_type,
            tags=list(config.tags),
            name=name,
            id=_run_id(folder),
            resume="allow",
            mode=config.mode,  # type: ignore[arg-type]  # one of its literals
            dir=str(folder.resolve()),
            config=dict(resolved),
            # A remote's address may hold a token, and the revision is in metrics.json anyway.
            settings=wandb.Settings(disable_git=True, save_code=False),
        )
    except wandb.Error as error:
        raise RunError(
            f"W&B does not begin a run: {error}\n"
            "Mend that, or set logger.wandb.mode=offline and send the files later (wandb sync)."
        ) from error


def _run_id(folder: Path) -> str:
    """The id of the tracker's run, the same for every start of this one."""
    file = folder / "wandb" / "lpt-run-id"
    if not file.exists() or not file.read_text(encoding="utf-8"):
        file.parent.mkdir(parents=True, exist_ok=True)
        # W&B's own agent has given the run an id already.
        given = os.environ.get("WANDB_RUN_ID") if "WANDB_SWEEP_ID" in os.environ else None
        write_atomically(file, given or secrets.token_hex(4))
    return file.read_text(encoding="utf-8")


def log_outcome(
    run: Any,
    run_dir: Path,
    metrics: Mapping[str, Any],
    answers: Mapping[str, EvalOutput],
    task: Task,
) -> None:
    """Log the predictions of each answered set as a table, and the adapter as an artifact.

    Both are known by their content: logging them again after an interruption adds no version.
    """
    import wandb

    for name, given in answers.items():
        columns = prediction_columns(given, task)
        columns = {**columns, **{n: c for n, c in given.part.columns.items() if n not in columns}}
        rows = [list(row) for row in zip(*columns.values(), strict=True)]
        with or_warn(f"the predictions of {name} to W&B"), _staged_in(run_dir):
            run.log({f"predictions/{name}": wandb.Table(columns=list(columns), data=rows)})
    with or_warn("the adapter to W&B"), _staged_in(run_dir):
        told = ("task", "model", "prompt", "seed", "dev", "test", "selection", "environment")
        artifact = wandb.Artifact(
            f"adapter-{run.id}", type="adapter", metadata={key: metrics[key] for key in told}
        )
        # Immutable: taken from where it lies, not from a copy elsewhere.
        artifact.add_dir(str((run_dir / ADAPTER).resolve()), policy="immutable")
        run.log_artifact(artifact)


def log_sweep(
    config: WandbConfig,
    folder: Path,
    name: str,
    rows: Sequence[Mapping[str, Any]],
    *,
    score: str,
    figures: Sequence[Path] = (),
    resolved: Mapping[str, Any] | None = None,
) -> None:
    """Log what a sweep has come to as a run of its own; again after a resumed sweep, the same run.

    Results: the table `sweep/results`; with a column `prompt.layer`, the score by layer as
    `sweep/layer_curve`, a mean over the rows of each layer; figures as `sweep/NAME`. A tracker that
    fails is warned of: the results lie in the folder anyway.

    Args:
        config: The tracker's settings; nothing happens if it is off.
        folder: The sweep's; the tracker's files go in here.
        name: Name of the sweep, and the group of its runs unless the settings name one.
        rows: Results, a row a setting or a job, by column.
        score: Column with the score that the layer curve shows.
        figures: PNG files.
        resolved: What the sweep's jobs have in common, as plain types.
    """
    if not config.enabled:
        return
    with or_warn("the summary of the sweep to W&B"):
        import wandb

        run = start_run(
            config,
            folder,
            name=name,
            job_type=SWEEP_SUMMARY,
            group=config.group or name,
            resolved=resolved or {},
        )
        columns = list(dict.fromkeys(column for row in rows for column in row))
        data = [[row.get(column) for column in columns] for row in rows]
        curve = layer_curve(rows, score)
        with run, _staged_in(folder):
            table = wandb.Table(columns=columns, data=data, allow_mixed_types=True)
            logged: dict[str, Any] = {"sweep/results": table}
            if curve:
                points = wandb.Table(columns=[LAYER, score], data=curve)
                title = f"{score} by layer"
                logged["sweep/layer_curve"] = wandb.plot.line(points, LAYER, score, title=title)
            logged |= {f"sweep/{figure.stem}": wandb.Image(str(figure)) for figure in figures}
            run.log(logged)


def layer_curve(rows: Sequence[Mapping[str, Any]], score: str) -> list[list[float]]:
    """Mean score of each layer, by layer; rows that lack one of the two do not count."""
    scores: dict[int, list[float]] = defaultdict(list)
    for row in rows:
        if row.get(LAYER) is not None and row.get(score) is not None:
            scores[int(row[LAYER])].append(float(row[score]))
    return [[layer, fmean(scores[layer])] for layer in sorted(scores)]


def finish(*, failed: bool) -> None:
    """Send what is left and close the run of this process, if there is one."""
    import wandb

    with or_warn("the last records to W&B"):
        try:
            wandb.finish(exit_code=int(failed))
        except Exception:
            # Its service is gone: the next run would ask for it, and the end of the process, too.
            with suppress(Exception):
                wandb.teardown()
            raise


@contextmanager
def or_warn(what: str) -> Iterator[None]:
    """A tracker that fails in this block costs what it was to be sent, not the run."""
    try:
        yield
    except Exception as error:  # whatever a tracker raises
        logger.warning("Could not send %s (%s: %s).", what, type(error).__name__, error)


@contextmanager
def _staged_in(folder: Path) -> Iterator[None]:
    """Keep what waits for `wandb sync` in this folder instead of the user's own."""
    name = "WANDB_DATA_DIR"
    if name in os.environ:
        yield
        return
    os.environ[name] = str((folder / "wandb" / "data").resolve())
    try:
        yield
    finally:
        del os.environ[name]
