"""metrics.json and progress.json: the results of a run, and how far it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from lpt.config.resolve import flatten
from lpt.files import JsonModel, JsonObject, read_json_model, write_atomically
from lpt.runs.environment import Environment
from lpt.runs.run_dir import METRICS_FILE, PROGRESS_FILE

_MAX_BYTES = 1 << 26  # both grow with the number of dev evaluations

Scores = dict[str, float]
"""Metric to value."""
ScoresOrNone = Scores | None
"""None for a set without labels."""

# Where files are and what is logged; task.default_path is where lpt is installed.
_NO_SETTINGS = (
    *("run_dir", "resume", "overwrite", "dry_run", "logger", "sweep"),
    *("cache.dir", "task.default_path"),
)


class BackboneRecord(JsonModel):
    """The frozen weights."""

    name: str
    """Short name."""
    model_type: str
    """Family, as transformers names it."""
    fingerprint: str
    """SHA-256 of the weights, shortened."""
    commit: str | None
    """Commit on the hub; None for a local folder or package."""


class SplitRecord(JsonModel):
    """The sets of a run; split.json has their rows."""

    origin: dict[str, str]
    """Where each set comes from, in words."""
    sizes: dict[str, int]
    """Examples of each set."""
    groups: dict[str, int]
    """Groups of each set whose examples form groups."""
    truncated: dict[str, int]
    """Texts of each set that were cut at data.max_length."""
    sha256: str
    """Of rows and texts of train, dev and test."""


class Selection(JsonModel):
    """Which checkpoint was tested."""

    metric: str
    step: int
    value: float
    """Of the metric on dev, at that step."""


class ParameterCounts(JsonModel):
    """Sizes of the model."""

    trainable: int
    total: int


class Cost(JsonModel):
    """What the run took, summed over all its starts; peak memory is the largest of them."""

    starts: int
    """1 for a run that was never interrupted."""
    steps: int
    """Optimizer steps."""
    train_seconds: float
    """Training steps alone: no evaluation, no cache."""
    total_seconds: float
    """From the start of the run to its last score."""
    cache_seconds: float
    """Precomputing hidden states."""
    examples_per_second: float
    """Training examples, over all devices."""
    padding_share: float
    """Share of padding among the tokens of the training batches."""
    peak_memory_mib: float
    """While training; on the GPU what was allocated, else what was resident."""
    peak_memory_mib_before_training: float


class CacheRecord(JsonModel):
    """Which sets' hidden states were cached."""

    sets: list[str]
    reason: str | None
    """Why some or all were not."""


_IDENTITY: Mapping[str, type] = {
    "task.name": str,
    "model.name": str,
    "prompt.kind": str,
    "prompt.layer": int,
    "data.seed": int,
    "seed": int,
}


class RunRecord(JsonModel):
    """What metrics.json holds; its presence marks a finished run."""

    format: Literal[1] = 1
    run_dir: str
    command: list[str]
    """Overrides on the command line; empty for a run that was started from Python."""
    config: JsonObject
    """The resolved configuration (`lpt.config.resolve`), the same as in config.yaml."""
    backbone: BackboneRecord
    split: SplitRecord
    metrics: list[str] = Field(min_length=1)
    """Names of the task's metrics, the selecting one first."""
    selection: Selection
    dev: Scores
    test: ScoresOrNone
    extra: dict[str, ScoresOrNone]
    """Scores of the extra evaluation sets."""
    majority: dict[str, ScoresOrNone]
    """Scores of the most frequent answer in train, by set."""
    zero_shot: dict[str, ScoresOrNone]
    """Scores of the language model without a prompt, by set."""
    dev_history: list[Scores]
    """Each dev evaluation: `step` and its scores."""
    parameters: ParameterCounts
    cost: Cost
    cache: CacheRecord
    environment: Environment

    @model_validator(mode="after")
    def _check(self) -> Self:
        """What a report computes with is there: the keys that identify a run, its dev scores."""
        flat, metric = flatten(self.config), self.selection.metric
        keys = [key for key, kind in _IDENTITY.items() if type(flat.get(key)) is not kind]
        if keys:
            raise ValueError(f"config: expected a resolved configuration, with {', '.join(keys)}")
        if metric not in self.dev or any({"step", metric} - s.keys() for s in self.dev_history):
            raise ValueError(f"dev, dev_history: expected scores of {metric}, the selecting metric")
        return self

    @classmethod
    def read(cls, run_dir: Path) -> Self:
        """The record of the run in a folder; a `ConfigError` names all of its faults."""
        return read_json_model(run_dir / METRICS_FILE, cls, _MAX_BYTES)

    def write(self, run_dir: Path) -> None:
        """Write metrics.json, the last file of a run."""
        write_atomically(run_dir / METRICS_FILE, self.model_dump_json(indent=2) + "\n")

    def settings(self) -> dict[str, Any]:
        """What makes this run comparable with others: dotted config key to value.

        Besides the configuration, the weights (`backbone.fingerprint`) and the examples
        (`split.sha256`); not where files go and what is logged.
        """
        flat = flatten(self.config)
        kept = {key: value for key, value in flat.items() if not key.startswith(_NO_SETTINGS)}
        weights, examples = self.backbone.fingerprint, self.split.sha256
        return kept | {"backbone.fingerprint": weights, "split.sha256": examples}

    def scores(self) -> dict[str, ScoresOrNone]:
        """Final scores of dev, test and the extra sets."""
        return {"dev": self.dev, "test": self.test, **self.extra}

    def summary(self) -> dict[str, float]:
        """Final scores under the names that every logger gets: `final/test/accuracy`."""
        tables = {"majority": self.majority, "zero_shot": self.zero_shot, "final": self.scores()}
        return {
            f"{kind}/{split}/{metric}": value
            for kind, sets in tables.items()
            for split, scores in sets.items()
            for metric, value in (scores or {}).items()
        }


class RunProgress(JsonModel):
    """What progress.json holds; a run rewrites it at each dev evaluation.

    Attributes:
        metric: Metric that selects the checkpoint.
        steps: Optimizer steps of the whole run.
        dev_history: Each dev evaluation so far: `step` and its scores.
    """

    metric: str
    steps: int
    dev_history: list[Scores]

    @classmethod
    def read(cls, run_dir: Path) -> Self:
        """The progress of the run in a folder; a `ConfigError` names all of its faults."""
        return read_json_model(run_dir / PROGRESS_FILE, cls, _MAX_BYTES)

    def write(self, run_dir: Path) -> None:
        """Write progress.json."""
        write_atomically(run_dir / PROGRESS_FILE, self.model_dump_json() + "\n")


def dev_scores(run_dir: Path) -> list[float]:
    """Dev score of each evaluation of a run so far; a `ConfigError` names a damaged file."""
    if not (run_dir / PROGRESS_FILE).exists():
        return []
    progress = RunProgress.read(run_dir)
    return [scores[progress.metric] for scores in progress.dev_history]
