"""Checks of the configuration alone, before anything is loaded: ranges, choices, combinations."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

from lpt.config.constraints import check_limits
from lpt.config.extras import check_extra
from lpt.config.metric_specs import GOLD_ANSWERS, GROUPS, METRIC_SPECS, TWO_LABELS
from lpt.config.schema import Config
from lpt.config.task_schema import CANDIDATE_EXPANSIONS, UNKNOWN
from lpt.errors import Problems, did_you_mean


def validate(config: Config) -> Problems:
    """Check everything that the configuration alone can tell; returns the problems."""
    problems = Problems()
    check_limits(config, "", problems)
    for check in (
        _check_model,
        _check_task,
        _check_metrics,
        _check_prompt,
        _check_data,
        _check_trainer,
        _check_strategy,
        _check_resume,
    ):
        check(config, problems)
    if config.logger.tensorboard:
        check_extra("tensorboard", "logger.tensorboard", problems)
    return problems


def _check_model(config: Config, problems: Problems) -> None:
    if (config.model.path is None) == (config.model.package is None):
        problems.add(
            "model.path",
            f"{config.model.path}, and model.package={config.model.package}",
            "one of model.path (folder or Hub id) and model.package",
            "pick a model (model=roberta-base) or a folder: model=local model.path=FOLDER",
        )
    if config.model.gguf_file is not None:
        check_extra("demo", "model.gguf_file", problems)


def _check_task(config: Config, problems: Problems) -> None:
    task = config.task
    labels = str(task.labels)
    if len(task.labels) < 2 or len(set(task.labels)) < len(task.labels):
        problems.add("task.labels", labels, "at least two, all distinct")
    if task.task_type != "classification" and len(task.labels) != 2:
        problems.add("task.labels", labels, f"two labels for task.task_type={task.task_type}")
    if task.task_type == "regression":
        if not _is_range(task.labels):
            expected = "the two ends of a range without -1, which marks missing labels: e.g. [0,5]"
            problems.add("task.labels", labels, expected)
        if config.loss == "vocabulary":
            problems.add("loss", "vocabulary for a regression", "label_words, or null")
    if task.task_type == "multiple_choice" and task.row_expansion not in CANDIDATE_EXPANSIONS:
        given = f"multiple_choice with task.row_expansion={task.row_expansion}"
        problems.add(
            "task.task_type", given, f"task.row_expansion={' or '.join(CANDIDATE_EXPANSIONS)}"
        )
    if len(task.label_words) != len(task.labels):
        given = f"{len(task.label_words)} words for {len(task.labels)} labels"
        problems.add("task.label_words", given, "one word per label, in the order of task.labels")
    for name in task.extra:
        if name in ("train", "dev", "test") or not re.fullmatch(r"[\w-]+", name):
            expected = "another name than train, dev, test, of letters, digits, - and _"
            problems.add("task.extra", repr(name), expected)


def _is_range(labels: Sequence[str]) -> bool:
    try:
        numbers = [float(label) for label in labels]
    except ValueError:
        return False
    rising = numbers == sorted(set(numbers)) and all(map(math.isfinite, numbers))
    return rising and not numbers[0] <= UNKNOWN <= numbers[-1]


def _check_metrics(config: Config, problems: Problems) -> None:
    task = config.task
    has = {
        None: True,
        TWO_LABELS: len(task.labels) == 2,
        GROUPS: task.row_expansion == "multirc",
        GOLD_ANSWERS: task.row_expansion == "record",
    }
    fitting = [
        name
        for name, metric in METRIC_SPECS.items()
        if task.task_type in metric.task_types and has[metric.needs]
    ]
    chosen = {
        "task.metric": [task.metric],
        "task.metrics": task.metrics,
        "task.test_metrics": task.test_metrics,
    }
    for name, extra in task.extra.items():
        chosen[f"task.extra.{name}.metrics"] = extra.metrics if extra is not None else []
    for key, names in chosen.items():
        for name in names:
            if name not in fitting:
                expected = f"for this task: {', '.join(fitting)}"
                problems.add(key, repr(name), expected, did_you_mean(name, fitting))


def _check_prompt(config: Config, problems: Problems) -> None:
    prompt = config.prompt
    if prompt.layer is not None:
        depth = config.model.layers
        check_layer(prompt.kind, prompt.layer, depth, config.model.name, problems)
    if prompt.kind == "static":
        if prompt.bottleneck is not None:
            problems.add("prompt.bottleneck", str(prompt.bottleneck), "null for a static prompt")
        return
    if prompt.bottleneck is None:
        problems.add("prompt.bottleneck", "null", "a width, e.g. 128")
    if prompt.init is not None:
        problems.add("prompt.init", prompt.init, "null for a generator")


def check_layer(kind: str, layer: int, depth: int | None, model: str, problems: Problems) -> None:
    """Check prompt.layer against the depth of the model; None if unknown."""
    if layer == 1 and kind != "static":
        problems.add(
            "prompt.layer",
            f"1 with the generator {kind}",
            "2 or more: a generator reads the hidden states below it",
            "raise prompt.layer, or use classic prompt tuning: prompt=static prompt.layer=1",
        )
    if depth is not None and layer > depth:
        problems.add("prompt.layer", str(layer), f"1 to {depth} for {model}")


def _check_data(config: Config, problems: Problems) -> None:
    data, task = config.data, config.task
    if data.protocol == "kshot" and data.k is None:
        problems.add("data.k", "null", "a number of training examples", "data.k=100")
    if data.protocol == "full" and data.k is not None:
        problems.add("data.k", f"{data.k} with data=full", "null", "data=kshot samples k examples")
    if data.k is not None and data.sampling == "total" and data.k < len(task.labels):
        problems.add("data.k", str(data.k), f"{len(task.labels)} or more, one per label")
    for key, folder in {"data.path": data.path, "data.root": data.root}.items():
        if folder is not None and not Path(folder).is_dir():
            problems.add(key, folder, "an existing folder")
    if data.path is not None and data.root is not None:
        problems.add("data.root", f"{data.root}, and data.path={data.path}", "only one of them")
    if data.path is None and data.root is None and task.default_path is None and task.hub is None:
        hint = "data.path=FOLDER, or data.root=FOLDER that contains a folder per task"
        given = f"null, and task {task.name} is not on the Hub"
        problems.add("data.path", given, "a folder with the files of the task", hint)


def _check_trainer(config: Config, problems: Problems) -> None:
    trainer = config.trainer
    for name in ("max", "eval_every"):
        steps, epochs = getattr(trainer, f"{name}_steps"), getattr(trainer, f"{name}_epochs")
        if (steps is None) == (epochs is None):
            key, other = f"trainer.{name}_steps", f"trainer.{name}_epochs"
            given = "both null" if steps is None else f"{steps}, and {other} is {epochs}"
            problems.add(key, given, f"exactly one of {key} and {other}", f"{other}=null")
    if trainer.max_steps is not None and trainer.eval_every_epochs is not None:
        problems.add(
            "trainer.eval_every_epochs",
            "set together with trainer.max_steps",
            "trainer.eval_every_steps if the training is counted in steps",
            "trainer.eval_every_epochs=null trainer.eval_every_steps=100",
        )
    if trainer.max_epochs and trainer.eval_every_steps and trainer.accumulate_grad_batches > 1:
        problems.add(
            "trainer.eval_every_steps",
            "set together with trainer.max_epochs and trainer.accumulate_grad_batches",
            "trainer.eval_every_epochs if the training is counted in epochs",
        )
    for unit in ("steps", "epochs"):
        length, every = getattr(trainer, f"max_{unit}"), getattr(trainer, f"eval_every_{unit}")
        if length and every and length % every:
            problems.add(
                f"trainer.eval_every_{unit}",
                f"{every}, but training ends after {length}",
                f"a divisor of {length}, as steps after the last evaluation could not be selected",
            )


def _check_strategy(config: Config, problems: Problems) -> None:
    strategy = config.strategy
    processes = strategy.devices * strategy.num_nodes
    if strategy.name == "single" and processes > 1:
        hint = f"strategy=ddp strategy.devices={strategy.devices}"
        given = f"{processes} devices with strategy=single"
        problems.add("strategy.devices", given, "1", hint)
    dtype, precision = config.model.dtype, config.trainer.precision
    if (dtype == "float16" or precision == "16-mixed") and strategy.accelerator != "gpu":
        hint = "model.dtype=bfloat16 trainer.precision=bf16-mixed"
        given = f"{dtype} with trainer.precision={precision}"
        problems.add("model.dtype", given, "float16 only with strategy.accelerator=gpu", hint)
    if strategy.name == "fsdp" and strategy.accelerator == "cpu":
        problems.add("strategy.accelerator", "cpu with strategy=fsdp", "gpu")


def _check_resume(config: Config, problems: Problems) -> None:
    if config.resume is not None and config.overwrite:
        problems.add("resume", f"{config.resume} with overwrite=true", "only one of them")
    if config.resume not in (None, "auto") and config.run_dir not in (None, config.resume):
        given = f"{config.run_dir} with resume={config.resume}"
        problems.add("run_dir", given, "null, or resume=auto")
    if config.resume == "auto" and config.run_dir is None:
        problems.add("run_dir", "null with resume=auto", "the folder of the run to be resumed")
    if config.run_dir is None and config.strategy.num_nodes > 1:
        problems.add("run_dir", "null with several nodes", "a folder that all nodes see")
