"""A task: its template, labels, label words and metrics, for one kind of model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lpt.config.schema import Config
from lpt.config.task_schema import ExtraSet
from lpt.data.split_file import read_split_file
from lpt.data.templates import MASK, Template
from lpt.errors import config_error


@dataclass(frozen=True)
class Task:
    """A task, ready for one kind of model; attributes not listed are those of `TaskConfig`.

    Attributes:
        template: Parsed template.
        labels: Labels as they are written in the data; for regression, the ends of the range.
        metrics: Metrics to report; the first one selects the checkpoint.
        set_metrics: Metrics of the evaluation sets that have their own.
        extra_columns: Columns to keep besides those of the template.
    """

    name: str
    template: Template
    labels: tuple[str, ...]
    label_words: tuple[str, ...]
    metrics: tuple[str, ...]
    task_type: str = "classification"
    label_column: str = "label"
    aliases: Mapping[str, Sequence[str]] = field(default_factory=dict)
    label_aliases: Mapping[str, str] = field(default_factory=dict)
    skip_labels: tuple[str, ...] = ()
    id_columns: tuple[str, ...] = ()
    row_expansion: str | None = None
    set_metrics: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    extra_columns: tuple[str, ...] = ()

    @property
    def metric(self) -> str:
        """The metric that selects the checkpoint."""
        return self.metrics[0]

    @property
    def value_range(self) -> tuple[float, float] | None:
        """The range of a regression task; None for other tasks."""
        if self.task_type != "regression":
            return None
        return float(self.labels[0]), float(self.labels[1])

    def format_label(self, label: float) -> str:
        """A label index or number as the data write it."""
        return format_label(label, self.labels, self.value_range)

    def metrics_for(self, set_name: str) -> tuple[str, ...]:
        """Metrics of an evaluation set."""
        return self.set_metrics.get(set_name, self.metrics)


def format_label(label: float, labels: Sequence[str], value_range: Sequence[float] | None) -> str:
    """A label as the data write it: the label with that index, or the number."""
    return f"{label:.3f}" if value_range is not None else labels[int(label)]


def build_task(config: Config, kind: str | None) -> Task:
    """The configured task for a `masked` or `causal` model.

    Without a kind (None), for the one that it has a template for.

    Raises:
        ConfigError: It has no valid template for that kind, or `data.verify` names the split file
            of another task.
    """
    task = config.task
    if kind is None:  # no usable model, or none needed
        only_causal = "masked" not in task.templates and "causal" in task.templates
        causal = MASK not in task.template if task.template is not None else only_causal
        kind = "causal" if causal else "masked"
    template = task.template if task.template is not None else task.templates.get(kind)
    if template is None:
        raise config_error(
            "task.template",
            f"null, and task {task.name} has no template for a {kind} model",
            f"templates for: {', '.join(task.templates) or 'none'}",
            "set one: 'task.template=\"...\"', or use another kind of model",
        )
    set_metrics = {name: extra.metrics for name, extra in extra_eval_sets(config).items()}
    set_metrics["test"] = task.test_metrics
    return Task(
        name=task.name,
        template=Template.parse(template, "masked" if kind == "masked" else "causal"),
        labels=tuple(task.labels),
        label_words=tuple(task.label_words),
        metrics=tuple(dict.fromkeys([task.metric, *task.metrics])),
        task_type=task.task_type,
        label_column=task.label_column,
        aliases=task.aliases,
        label_aliases=task.label_aliases,
        skip_labels=tuple(task.skip_labels),
        id_columns=tuple(task.id_columns),
        row_expansion=task.row_expansion,
        set_metrics={name: tuple(metrics) for name, metrics in set_metrics.items() if metrics},
        extra_columns=_verified_columns(config),
    )


def extra_eval_sets(config: Config) -> dict[str, ExtraSet]:
    """The task's extra evaluation sets; none with `data.extra=false`."""
    sets = config.task.extra if config.data.extra else {}
    return {name: extra for name, extra in sets.items() if extra is not None}


def _verified_columns(config: Config) -> tuple[str, ...]:
    """Columns of the template of the split file that the data will be verified against."""
    if config.data.verify is None:
        return ()
    expected = read_split_file(Path(config.data.verify))
    if expected.task != config.task.name:
        given = f"{config.data.verify} is of task {expected.task}"
        raise config_error("data.verify", given, f"a split file of {config.task.name}")
    return Template.parse(expected.template, expected.kind).columns
