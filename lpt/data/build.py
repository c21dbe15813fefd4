"""From the configuration to a task, the source of its rows, and the sets of a run."""

from __future__ import annotations

import logging
from pathlib import Path

from lpt.config.schema import Config
from lpt.config.task_schema import ExtraSet
from lpt.data.sources import Hub, Source, find_folders, open_folder
from lpt.data.split_file import read_description, verify
from lpt.data.splits import Splits, make_splits
from lpt.data.tasks import Task, choose_template
from lpt.data.templates import MASK, Template
from lpt.errors import config_error

logger = logging.getLogger(__name__)


def build_task(config: Config, kind: str | None) -> Task:
    """The task for a `masked` or `causal` model; None: for the likelier one.

    Raises:
        ConfigError: It has no good template for that kind.
    """
    task = config.task
    if kind is None:  # the model is at fault already, or the data alone matter
        only_causal = "masked" not in task.templates and "causal" in task.templates
        causal = MASK not in task.template if task.template is not None else only_causal
        kind = "causal" if causal else "masked"
    also: tuple[str, ...] = ()
    if config.data.verify is not None:
        expected = read_description(Path(config.data.verify))
        if expected["task"] != task.name:
            given = f"{config.data.verify} is of task {expected['task']}"
            raise config_error("data.verify", given, f"a split file of {task.name}")
        also = Template.parse(expected["template"], expected["kind"]).columns
    metrics = tuple(dict.fromkeys([task.metric, *task.metrics]))
    own = {"test": task.test_metrics} | {n: e.metrics for n, e in extra_eval_sets(config).items()}
    return Task(
        name=task.name,
        template=choose_template(task.name, kind, task.templates, task.template),
        labels=tuple(task.labels),
        label_words=tuple(task.label_words),
        metrics=metrics,
        task_type=task.task_type,
        label_column=task.label_column,
        aliases=task.aliases,
        label_aliases=task.label_aliases,
        skip_labels=tuple(task.skip_labels),
        id_columns=tuple(task.id_columns),
        row_expansion=task.row_expansion,
        set_metrics={name: tuple(names) for name, names in own.items() if names},
        extra_columns=also,
    )


def extra_eval_sets(config: Config) -> dict[str, ExtraSet]:
    """The task's further sets that are wanted."""
    named = config.task.extra if config.data.extra else {}
    return {name: extra for name, extra in named.items() if extra is not None}


def find_source(config: Config) -> Source | None:
    """Where the task's rows are; None if data.root has none of them.

    Of several folders under data.root, that with most of the task's sets is taken.

    Raises:
        ConfigError: Several folders have as many.
    """
    task, data = config.task, config.data
    extra = extra_eval_sets(config)
    files = task.files | {name: e.file for name, e in extra.items()}
    splits = task.hub_splits | {name: e.hub for name, e in extra.items() if e.hub is not None}

    def opened(path: Path) -> Source:
        return open_folder(path, files, splits, task.header, task.skip_short_rows)

    if data.path is not None:
        return opened(Path(data.path))
    if data.root is None and task.hub is not None:
        return Hub(task.hub, task.hub_config, splits)
    if data.root is None:
        assert task.default_path is not None
        return opened(Path(task.default_path))
    found = {path: opened(path) for path in find_folders(Path(data.root), _folder_names(config))}
    if task.fixed_test:
        found = {path: source for path, source in found.items() if source.has("test")}
    sets = {path: sum(source.has(name) for name in files) for path, source in found.items()}
    best = [path for path, count in sets.items() if count == max(sets.values())]
    if len(best) > 1:
        listed = ", ".join(map(str, best))
        given = f"{data.root} has {listed} for {task.name}"
        raise config_error("data.root", given, "one of them", f"data.path={best[0]}")
    if len(sets) > 1:
        logger.info("Of %s, %s is taken.", " and ".join(map(str, sets)), best[0])
    return found[best[0]] if best else None


def _folder_names(config: Config) -> list[str]:
    task = config.task
    return list(dict.fromkeys(n for n in (task.folder or task.name, task.hub_config) if n))


def _build_source(config: Config) -> Source:
    source = find_source(config)
    if source is None:
        root = Path(str(config.data.root))
        present = ", ".join(sorted(p.name for p in root.iterdir() if p.is_dir()))
        test = config.task.files.get("test") if config.task.fixed_test else None
        raise config_error(
            "data.root",
            f"{root} has no folder {' or '.join(_folder_names(config))}"
            f"{f' with {test}' if test else ''} (it has: {present or 'none'})",
            "a folder that holds the tasks under their official names",
            "data.path=FOLDER",
        )
    return source


def read_splits(config: Config, task: Task) -> Splits:
    """The sets of a run; those of a split file, if one is to be verified.

    Raises:
        ConfigError: Something about the data is wrong.
    """
    data = config.data
    splits = make_splits(
        _build_source(config),
        task,
        protocol=data.protocol,
        k=data.k,
        dev_k=data.dev_k,
        sampling=data.sampling,
        seed=data.seed,
        test=data.test,
        fixed_test=config.task.fixed_test,
        limits=(data.limit_train, data.limit_dev, data.limit_test),
        extra=list(extra_eval_sets(config)),
    )
    if data.verify is not None:
        verify(splits, task, Path(data.verify))
    return splits
