"""The typed schema of the groups task and data; see `lpt.config.schema` for the rest."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Optional

from omegaconf import MISSING

from lpt.config.constraints import limited
from lpt.data.candidates import EXPANSIONS


@dataclass
class ExtraSet:
    """A further set that is answered with the picked checkpoint, where the source has it."""

    file: str | None = None
    """Its file, relative to the task's folder; without a suffix, of any kind."""
    hub: str | None = None
    """Its split on the hub; `config/split` or `owner/name/config/split` for another data set."""
    metrics: list[str] = field(default_factory=list)
    """Metrics reported for it; empty: those of the task."""


@dataclass
class TaskConfig:
    """A task as data: where its rows are, how they read, how they are answered and scored."""

    name: str = MISSING
    """Name of the task."""
    folder: str | None = None
    """Official name of its folder inside data.root; null: the task's name."""
    hub: str | None = None
    """Hub id of the data set, used when neither data.path nor data.root is given."""
    hub_config: str | None = None
    """Configuration name of the data set on the hub."""
    files: dict[str, str | None] = field(
        default_factory=lambda: dict.fromkeys(("train", "dev", "test"))
    )
    """File of each split inside data.path; without a suffix, of any kind; null: train, dev (or
    validation, valid, val), test. The hub's name of a split does as well."""
    hub_splits: dict[str, str] = field(default_factory=dict)
    """Split name on the hub for each of train, dev, test (addresses as in `ExtraSet.hub`)."""
    extra: dict[str, Optional[ExtraSet]] = field(default_factory=dict)  # noqa: UP045  (OmegaConf)
    """Further sets to answer, by name; null: not that one."""
    fixed_test: bool = False
    """The official test set is tested under every protocol: a diagnostic for models trained on
    another task."""
    header: list[str] | None = None
    """Column names of files that have no header line; null: the first line names them."""
    skip_short_rows: bool = False
    """Leave out rows with too few columns, of which some official files have a few."""
    row_expansion: str | None = limited(None, choices=tuple(EXPANSIONS))
    """How rows become examples where text cannot say it (lpt/data/candidates.py)."""
    label_column: str = "label"
    """Column that holds the label."""
    id_columns: list[str] = field(default_factory=lambda: ["idx", "index", "id"])
    """Columns that may hold the official id of a row; the first that is there. Ids must differ."""
    aliases: dict[str, list[str]] = field(default_factory=dict)
    """Other names under which a column may stand in official files or on the hub."""
    labels: list[str] = MISSING
    """Labels as they stand in the data; their order is the label index. Of a number, the ends."""
    label_aliases: dict[str, str] = field(default_factory=dict)
    """Other ways to write a label (the hub's names and numbers), and the entry of `labels`."""
    skip_labels: list[str] = field(default_factory=list)
    """Rows with such a label are left out."""
    task_type: str = limited(
        "classification", choices=("classification", "multiple_choice", "regression")
    )
    """classification: the best label of each example; multiple_choice: the candidate of each group
    whose second label
    leads by most; regression: between the two labels, by the second one's share of probability."""
    label_words: list[str] = MISSING
    """Label word of each label: one token with a leading space, all distinct."""
    templates: dict[str, str] = field(default_factory=dict)
    """Template for `masked` models (one <mask>) and for `causal` ones (one {word})."""
    template: str | None = None
    """Template to use instead of the one in `templates`; {column} inserts a column."""
    metric: str = "accuracy"
    """Metric that selects the checkpoint."""
    metrics: list[str] = field(default_factory=list)
    """Metrics reported besides the selecting one."""
    test_metrics: list[str] = field(default_factory=list)
    """Metrics of the test set, where it is not measured as dev is."""
    default_path: str | None = None
    """Folder used when both data.path and hub are null (data that ships with lpt)."""


@dataclass
class DataConfig:
    """Which examples, drawn how, in what batches."""

    protocol: str = limited("full", choices=("full", "kshot"))
    """full: the official splits; kshot: a small training set drawn from the official one."""
    path: str | None = None
    """Folder with the task's files, official or as the hub has them, or saved by `datasets`."""
    root: str | None = None
    """Folder that holds such a folder for each task, under its official name."""
    extra: bool = True
    """Answer the task's further sets, too (MNLI's mismatched genres, the diagnostics)."""
    verify: str | None = None
    """A split.json; the run refuses other rows or texts than that names."""
    k: int | None = limited(None, ge=1)
    """Training examples drawn: in all (`sampling: total`) or of each class (`sampling: per_class`). What
    forms a group counts as one."""
    dev_k: int | None = limited(None, ge=1)
    """Dev examples drawn from the rest of train, counted like k; null: 1000, or k of each class. In
    full mode they are drawn where the task has no official dev set or tests on it (null: 1000, but
    at most a fifth of train)."""
    test: str = limited("official", choices=("official", "dev"))
    """Test set in full mode. dev: the official dev set, for tasks whose test labels are secret;
    dev_k rows of train become the dev set then."""
    sampling: str = limited("total", choices=("total", "per_class"))
    """total: stratified by class frequency (the reference); per_class: k of each (LM-BFF)."""
    seed: int = limited(13, ge=0)
    """Seed of the draw; not the model's seed."""
    max_length: int = limited(256, ge=4)
    """Tokens of a rendered example, special tokens included, prompt not."""
    batch_size: int = limited(32, ge=1)
    """Examples a device and training step."""
    eval_batch_size: int = limited(64, ge=1)
    """Examples a device and evaluation step."""
    bucketing: bool = True
    """Training batches of like length, which saves padding; false: plain random batches."""
    num_workers: int = limited(0, ge=0)
    """Worker processes that assemble batches."""
    limit_train: int | None = limited(None, ge=1)
    """Use only so many training examples, drawn with data.seed; a group counts as one."""
    limit_dev: int | None = limited(None, ge=1)
    """Use only so many dev examples, drawn the same way."""
    limit_test: int | None = limited(None, ge=1)
    """Use only so many examples of test and of each further set, drawn the same way."""
