"""Results of a run (metrics.json), and how far it is (progress.json)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from lpt.files import JsonFile, JsonModel, JsonObject
from lpt.runs.environment import Environment
from lpt.runs.run_dir import BACKBONE_FILE, METRICS_FILE, PROGRESS_FILE

Scores = dict[str, float]
"""Metric to value."""
ScoresOrNone = Scores | None
"""None for a set without labels."""


class BackboneRecord(JsonFile):
    """The frozen model; also what backbone.json holds, from the start of a run."""

    file_name = BACKBONE_FILE

    name: str
    model_type: str
    """Family, as transformers names it."""
    fingerprint: str
    """See `lpt.models.fingerprint`."""
    tokenizer: str | None = None
    """Fingerprint of its tokenizer."""
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
    labeled: dict[str, int] = Field(default_factory=dict)
    """Labeled examples, on which it is scored, of each set that is labeled in part."""
    truncated: dict[str, int]
    """Texts of each set that were cut at data.max_length."""
    warnings: list[str] = Field(default_factory=list)
    """What makes scores on the sets doubtful: classes without rows, shared texts, other numbers."""
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
    peak_memory_mb: float
    """While training, in MB (10^6 bytes); on the GPU what was allocated, else what was resident."""
    peak_memory_mb_before_training: float


class CacheRecord(JsonModel):
    """Which sets' hidden states were cached."""

    sets: list[str]
    reason: str | None
    """Why some or all were not."""


class RunRecord(JsonFile):
    """What metrics.json holds; its presence marks a finished run."""

    file_name = METRICS_FILE

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
    """Scores of the language model without the method, by set."""
    dev_history: list[Scores]
    """Each dev evaluation: `step` and its scores."""
    parameters: ParameterCounts
    cost: Cost
    cache: CacheRecord
    environment: Environment

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

    def covariates(self) -> dict[str, float]:
        """What scores are drawn against, under the names that every logger gets."""
        layer = (self.config["prompt"] or self.config["method"])["layer"]
        return {
            "layer": layer,
            "cost/train_seconds": self.cost.train_seconds,
            "cost/peak_memory_mb": self.cost.peak_memory_mb,
            "cost/trainable_parameters": self.parameters.trainable,
        }


class RunProgress(JsonFile):
    """What progress.json holds; a run rewrites it at each dev evaluation."""

    file_name = PROGRESS_FILE

    metric: str
    """Metric that selects the checkpoint."""
    steps: int
    """Optimizer steps of the whole run."""
    dev_history: list[Scores]
    """Each dev evaluation so far: `step` and its scores."""


def dev_scores(run_dir: Path) -> list[float]:
    """Dev score of each evaluation of a run so far; a `ConfigError` names a damaged file."""
    if not (run_dir / PROGRESS_FILE).exists():
        return []
    progress = RunProgress.read(run_dir)
    return [scores[progress.metric] for scores in progress.dev_history]
