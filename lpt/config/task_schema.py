"""The typed schema of the groups task and data; see `lpt.config.schema` for the rest."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Optional

from omegaconf import MISSING

MAX_SEED = 2**32 - 1
"""Of NumPy's and Lightning's generators."""
UNKNOWN = -1
"""Label index of an unlabeled example; in a regression, its number is NaN."""
ROW_EXPANSIONS = ("copa", "multirc", "record", "wsc")
"""Names of the row expansions; lpt/data/candidates.py has a function for each."""
CANDIDATE_EXPANSIONS = ("copa", "record")
"""Those that expand a row into a group of competing candidates."""

OF_THE_DATA = ("task.labels", "task.label_words")
"""Keys whose values the data suggest where they are missing."""


def is_labeled(label: float) -> bool:
    """Whether a label index or a number is that of a labeled example."""
    return label != UNKNOWN if isinstance(label, int) else not math.isnan(label)


def limited(default: Any, **limits: Any) -> Any:
    """A field whose value, unless null, is one of `choices` or within `ge`, `gt`, `le`, `lt`."""
    return field(default=default, metadata=limits)


@dataclass
class ExtraSet:
    """An extra evaluation set, predicted with the selected checkpoint if the source has it."""

    file: str | None = None
    """File, relative to the folder of the task; without a suffix, of any format."""
    hub: str | None = None
    """Split on the Hub; `config/split` or `owner/name/config/split` for another dataset."""
    metrics: list[str] = field(default_factory=list)
    """Metrics of this set; empty: the metrics of the task."""


@dataclass
class TaskConfig:
    """A task as data: sources, columns, labels, templates, metrics."""

    name: str = MISSING
    """Name of the task."""
    folder: str | None = None
    """Official folder name in data.root; null: the name of the task."""
    hub: str | None = None
    """Hub id of the dataset, used if neither data.path nor data.root is set."""
    hub_config: str | None = None
    """Configuration name of the dataset on the Hub."""
    files: dict[str, str | None] = field(
        default_factory=lambda: dict.fromkeys(("train", "dev", "test"))
    )
    """File of each split in data.path; without a suffix, of any format; null: train (or
    training), dev (or validation, valid, val), test (or testing), or the name on the Hub."""
    hub_splits: dict[str, str] = field(default_factory=dict)
    """Hub split of each of train, dev, test; written as in `ExtraSet.hub`."""
    extra: dict[str, Optional[ExtraSet]] = field(default_factory=dict)  # noqa: UP045  (OmegaConf)
    """Extra evaluation sets by name; null removes one."""
    fixed_test: bool = False
    """Test on the official test set under every protocol: a diagnostic set for models trained on
    another task."""
    header: list[str] | None = None
    """Column names of files without a header line; null: the first line has them."""
    skip_short_rows: bool = False
    """Skip rows with too few columns, which some official files contain."""
    row_expansion: str | None = limited(None, choices=ROW_EXPANSIONS)
    """Function that expands a row into its candidates (lpt/data/candidates.py)."""
    label_column: str = "label"
    """Column of the label."""
    id_columns: list[str] = field(default_factory=lambda: ["idx", "index", "id"])
    """Candidate columns of the official row id; the first one present. Ids must be unique."""
    aliases: dict[str, list[str]] = field(default_factory=dict)
    """Alternative names of a column in official files or on the Hub."""
    labels: list[Any] = field(default_factory=list)  # of text: lpt/config/label_text.py
    """Labels as in the data, in the order of the label index; of a regression, the two ends."""
    label_aliases: dict[Any, Any] = field(default_factory=dict)
    """Other spelling of a label (names and numbers on the Hub; `1.0`, `True`) -> entry of
    `labels`."""
    skip_labels: list[Any] = field(default_factory=list)
    """Rows with one of these labels are skipped."""
    task_type: str = limited(
        "classification", choices=("classification", "multiple_choice", "regression")
    )
    """classification: the label with the highest score; multiple_choice: in each group, the
    candidate whose second label wins by the largest margin; regression: a number between the two
    labels, from the probability of the second one."""
    label_words: list[Any] = field(default_factory=list)
    """Label word of each label: a single token with a leading space, all distinct."""
    positive_label: Any = None  # text or null
    """Label, of two, whose F1 `f1` and `f1a` are; null: the second one."""
    templates: dict[str, str] = field(default_factory=dict)
    """Template of `masked` models (one <mask>) and of `causal` models (one {word})."""
    template: str | None = None
    """Template that replaces the one in `templates`; {column} inserts a column."""
    metric: str = "accuracy"
    """Metric that selects the checkpoint."""
    metrics: list[str] = field(default_factory=list)
    """Further metrics to report."""
    test_metrics: list[str] = field(default_factory=list)
    """Metrics of the test set; empty: the same as on dev."""
    cumulative_sampling: list[str] = field(default_factory=list)
    """Values of data.sampling whose published script shuffles the order that its last seed left."""
    default_path: str | None = None
    """Folder used if data.path and hub are null (data that ships with lpt)."""


@dataclass
class DataConfig:
    """Splits, few-shot sampling, batches."""

    protocol: str = limited("full", choices=("full", "kshot"))
    """full: the official splits; kshot: a few training examples sampled from the official ones."""
    path: str | None = None
    """Folder with the files of the task: official, from the Hub, or saved by `datasets`."""
    root: str | None = None
    """Folder that contains such a folder for each task, under its official name."""
    extra: bool = True
    """Predict the extra evaluation sets of the task, too (mismatched MNLI, diagnostics)."""
    verify: str | None = None
    """A split.json; rows or texts that differ from it are an error."""
    k: int | None = limited(None, ge=1)
    """Training examples to sample: in total (`sampling: total`) or per class
    (`sampling: per_class`). A group of rows counts as one."""
    dev_k: int | None = limited(None, ge=1)
    """Dev examples to sample from the rest of train, counted like k; null: 1000, or k per class.
    With `protocol: full`, sampled if the task has no official dev set or tests on it (null: 1000,
    but at most a fifth of train)."""
    test: str = limited("official", choices=("official", "dev"))
    """Test set with `protocol: full`; dev: the official dev set, for tasks whose test labels are
    secret; dev_k rows of train are then the dev set."""
    sampling: str = limited("total", choices=("total", "stratified", "per_class"))
    """total: k rows by the reference implementation's rule, whose rounding may draw more or
    fewer and leave a class out; stratified: exactly k, in the classes' proportions; per_class: k
    of each class, as LM-BFF."""
    seed: int = limited(13, ge=0, le=MAX_SEED)
    """Seed of the sampling; not the seed of the model."""
    seed_order: str = limited("published", choices=("published", "single"))
    """published: for the seeds 100, 13, 21, 42, 87, the rows that the protocol's script draws for
    all of them in one go (`task.cumulative_sampling`); single: each seed by itself."""
    max_length: int = limited(256, ge=4)
    """Maximum tokens of a rendered example, with special tokens, without the prompt."""
    batch_size: int = limited(32, ge=1)
    """Examples per device and training step."""
    eval_batch_size: int = limited(64, ge=1)
    """Examples per device and evaluation step."""
    bucketing: bool = True
    """Group training examples of similar length, which saves padding; false: plain shuffling."""
    num_workers: int = limited(0, ge=0)
    """Worker processes of the data loaders."""
    limit_train: int | None = limited(None, ge=1)
    """Maximum number of training examples, sampled with data.seed; a group counts as one."""
    limit_dev: int | None = limited(None, ge=1)
    """Maximum number of dev examples, sampled likewise."""
    limit_test: int | None = limited(None, ge=1)
    """Maximum number of examples of test and each extra evaluation set, sampled likewise."""
