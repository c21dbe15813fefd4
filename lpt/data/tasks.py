"""A task for one kind of model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lpt.config.schema import Config
from lpt.config.task_schema import ExtraSet, TaskConfig
from lpt.data.split_file import read_split_file
from lpt.data.templates import MASK, Kind, Template
from lpt.errors import config_error


@dataclass(frozen=True)
class Task:
    """A configured task with its template for one kind of model.

    Attributes:
        config: The task as configured.
        template: The template.
        extra_columns: Columns to keep besides those of the template.
    """

    config: TaskConfig
    template: Template
    extra_columns: tuple[str, ...] = ()

    @property
    def metrics(self) -> list[str]:
        """Metrics to report; the first one selects the checkpoint."""
        return list(dict.fromkeys([self.config.metric, *self.config.metrics]))

    def metrics_for(self, set_name: str) -> list[str]:
        """Metrics of an evaluation set, which may have its own."""
        if set_name == "test":
            return self.config.test_metrics or self.metrics
        extra = self.config.extra.get(set_name)
        return (extra.metrics if extra is not None else []) or self.metrics

    @property
    def positive_label(self) -> int:
        """Index of the label whose F1 is `f1`."""
        name = self.config.positive_label
        return 1 if name is None else self.config.labels.index(name)

    @property
    def value_range(self) -> tuple[float, float] | None:
        """The range of a regression task; None for other tasks."""
        if self.config.task_type != "regression":
            return None
        low, high = map(float, self.config.labels)
        return low, high


def format_label(label: float, labels: Sequence[str]) -> str:
    """A label as the data write it: a number with all its digits, or the label with that index."""
    return str(label) if isinstance(label, float) else labels[label]


def build_task(config: Config, kind: Kind | None) -> Task:
    """The configured task for a `masked` or `causal` model.

    Without a kind (None), for the one that it has a template for.

    Raises:
        ConfigError: It has no valid template for that kind, or `data.verify` names the split file
            of another task.
    """
    task, templates = config.task, config.task.templates
    if kind is None:  # no usable model, or none needed
        any_template = templates.get("masked", templates.get("causal", MASK))
        kind = "masked" if MASK in (task.template or any_template) else "causal"
    template = task.template if task.template is not None else templates.get(kind)
    if template is None:
        raise config_error(
            "task.template",
            f"null, and task {task.name} has no template for a {kind} model",
            f"templates for: {', '.join(templates) or 'none'}",
            "set one: 'task.template=\"...\"', or use another kind of model",
        )
    parsed = Template.parse(template, kind)
    if task.label_column in parsed.columns:
        given = f"{template!r} inserts the label column"
        raise config_error("task.template", given, "columns that do not give the label away")
    return Task(task, parsed, _verified_columns(config))


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
