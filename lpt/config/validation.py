"""Checks of the configuration alone, before anything is loaded: ranges, choices, combinations."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

from lpt.config.checks import Checks, check_limits
from lpt.config.extras import check_extra
from lpt.config.method_checks import check_method_settings
from lpt.config.metric_specs import METRIC_SPECS
from lpt.config.schema import Config
from lpt.config.task_schema import CANDIDATE_EXPANSIONS
from lpt.errors import Problems, did_you_mean

_EXACTLY_ONE = (
    ("model.path", "model.package"),
    ("trainer.max_steps", "trainer.max_epochs"),
)


def validate(config: Config, *, has_rows: bool = False) -> Problems:
    """Check everything that the configuration alone can tell; returns the problems.

    Args:
        config: The configuration.
        has_rows: Whether the rows are at hand, so that none are read.
    """
    checks = Checks(config)
    check_limits(config, "", checks)
    for key, other in _EXACTLY_ONE:
        if (checks.values[key] is None) == (checks.values[other] is None):
            given = f"{checks.text(key)}, and {other}={checks.text(other)}"
            checks.add(key, given, "exactly one of the two", f"{key}=null or {other}=null")
    _check_task(config, checks)
    _check_metrics(config, checks)
    check_method_settings(config, checks)
    _check_data(config, has_rows, checks)
    _check_trainer(config, checks)
    _check_strategy(config, checks)
    _check_run_dir(config, checks)
    if config.model.gguf_file is not None:
        check_extra("demo", "model.gguf_file", checks)
    if config.logger.tensorboard:
        check_extra("tensorboard", "logger.tensorboard", checks)
    return checks


def _check_task(config: Config, checks: Checks) -> None:
    task, count = config.task, len(config.task.labels)
    distinct = count >= 2 and len(set(task.labels)) == count
    checks.require(distinct, "task.labels", "at least two, all distinct")
    expected = f"{count or 'as many'} words, one per label, in the order of task.labels"
    fitting = len(task.label_words) == count or not count
    checks.require(bool(task.label_words) and fitting, "task.label_words", expected)
    if task.task_type == "regression":
        expected = "the two ends of a range, the lower one first: e.g. [0,5]"
        checks.require(_is_range(task.labels), "task.labels", expected)
        checks.require(config.loss != "vocabulary", "loss", "label_words or null in a regression")
    elif task.task_type == "multiple_choice":
        expected = "[0,1] in this order: wrong and right, as the expanded rows are labeled"
        checks.require(task.labels == ["0", "1"], "task.labels", expected)
        expected = f"task.row_expansion={' or '.join(CANDIDATE_EXPANSIONS)} for multiple_choice"
        checks.require(task.row_expansion in CANDIDATE_EXPANSIONS, "task.task_type", expected)
    if task.positive_label is not None:
        options = task.labels if count == 2 and task.task_type == "classification" else []
        expected = ", ".join(options) or "null: it is for a classification with two labels"
        hint = did_you_mean(task.positive_label, options)
        fulfilled = task.positive_label in options
        checks.require(fulfilled, "task.positive_label", expected, hint)
    for name in task.extra:
        if name in ("train", "dev", "test") or not re.fullmatch(r"[\w-]+", name):
            expected = "another name than train, dev, test, of letters, digits, - and _"
            checks.add("task.extra", repr(name), expected)


def _is_range(labels: Sequence[str]) -> bool:
    try:
        low, high = map(float, labels)
    except ValueError:
        return False
    return -math.inf < low < high < math.inf


def _check_metrics(config: Config, checks: Checks) -> None:
    task = config.task
    fitting = [
        name
        for name, metric in METRIC_SPECS.items()
        if task.task_type in metric.task_types
        and (len(task.labels) == 2 or not metric.two_labels)
        and metric.row_expansion in (None, task.row_expansion)
    ]
    chosen = {
        "task.metric": [task.metric],
        "task.metrics": task.metrics,
        "task.test_metrics": task.test_metrics,
    }
    for name, extra in task.extra.items():
        chosen[f"task.extra.{name}.metrics"] = extra.metrics if extra is not None else []
    for key, names in chosen.items():
        for name in (name for name in names if name not in fitting):
            expected = f"for this task: {', '.join(fitting)}"
            checks.add(key, repr(name), expected, did_you_mean(name, fitting))


def _check_data(config: Config, has_rows: bool, checks: Checks) -> None:
    data, task = config.data, config.task
    kshot, least = data.protocol == "kshot", len(task.labels)
    expected = "a number of training examples with data=kshot, null with data=full"
    checks.require(kshot == (data.k is not None), "data.k", expected, "data=kshot data.k=100")
    enough = data.k is None or data.sampling == "per_class" or data.k >= least
    checks.require(enough, "data.k", f"{least} or more, one per label")
    exists = data.path is None or Path(data.path).exists()
    checks.require(exists, "data.path", "an existing folder or file")
    is_folder = data.root is None or Path(data.root).is_dir()
    checks.require(is_folder, "data.root", "an existing folder")
    unique = data.path is None or data.root is None
    checks.require(unique, "data.root", "null with data.path, which names the folder itself")
    if has_rows:
        for key in ("data.path", "data.root"):
            checks.require(checks.values[key] is None, key, "null, with rows from Python")
    elif data.path is None and data.root is None and task.default_path is None and task.hub is None:
        hint = "data.path=FOLDER, or data.root=FOLDER that contains a folder per task"
        given = f"null, and task {task.name} is not on the Hub"
        checks.add("data.path", given, "a folder with the files of the task", hint)


def _check_trainer(config: Config, checks: Checks) -> None:
    trainer = config.trainer
    checks.require(
        trainer.max_steps is None or trainer.eval_every_epochs is None,
        "trainer.eval_every_epochs",
        "null with trainer.max_steps: an interval in steps",
        "trainer.eval_every_epochs=null",
    )
    checks.require(
        trainer.max_steps is not None
        or trainer.eval_every_steps is None
        or trainer.eval_every_epochs is None,
        "trainer.eval_every_steps",
        f"null with trainer.eval_every_epochs={trainer.eval_every_epochs}, or the other way round",
    )
    accumulating = trainer.max_epochs is not None and trainer.accumulate_grad_batches > 1
    checks.require(
        not accumulating or trainer.eval_every_steps is None,
        "trainer.eval_every_steps",
        "null with trainer.max_epochs and trainer.accumulate_grad_batches: an interval in epochs",
    )


def _check_strategy(config: Config, checks: Checks) -> None:
    strategy, dtype, precision = config.strategy, config.model.dtype, config.trainer.precision
    single = strategy.devices == strategy.num_nodes == 1
    hint = f"strategy=ddp strategy.devices={strategy.devices}"
    expected = "1 on 1 node with strategy=single"
    checks.require(single or strategy.name != "single", "strategy.devices", expected, hint)
    if (dtype == "float16" or precision == "16-mixed") and strategy.accelerator != "gpu":
        hint = "model.dtype=bfloat16 trainer.precision=bf16-mixed"
        given = f"{dtype} with trainer.precision={precision}"
        checks.add("model.dtype", given, "float16 only with strategy.accelerator=gpu", hint)
    sharded_cpu = strategy.name == "fsdp" and strategy.accelerator == "cpu"
    checks.require(not sharded_cpu, "strategy.accelerator", "gpu for strategy=fsdp")


def _check_run_dir(config: Config, checks: Checks) -> None:
    resume, run_dir = config.resume, config.run_dir
    checks.require(resume is None or not config.overwrite, "resume", "null with overwrite=true")
    other = resume not in (None, "auto") and run_dir not in (None, resume)
    checks.require(not other, "run_dir", f"null with resume={resume}, or resume=auto")
    known = run_dir is not None or resume != "auto"
    checks.require(known, "run_dir", "with resume=auto, the folder of the run to be resumed")
    shared = run_dir is not None or config.strategy.num_nodes == 1
    checks.require(shared, "run_dir", "with several nodes, a folder that all of them see")
