"""Rules on the configuration that need nothing loaded: ranges, choices, what goes together."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lpt.config.constraints import check_limits
from lpt.config.schema import Config
from lpt.data.tasks import UNKNOWN
from lpt.errors import Problems, did_you_mean
from lpt.runs.record import FINISHED
from lpt.runs.run_dir import existing_outputs, is_global_zero
from lpt.tracking.wandb_login import check_wandb
from lpt.training.metrics import METRICS

_CHOICES = ("copa", "record")


def validate(config: Config) -> Problems:
    """Every rule that can be checked on the configuration alone; returns what it found."""
    problems = Problems()
    check_limits(config, "", problems)
    for check in (
        _check_model,
        _check_cache,
        _check_task,
        _check_prompt,
        _check_data,
        _check_trainer,
        _check_strategy,
        _check_resume,
        _check_run_dir,
    ):
        check(config, problems)
    check_wandb(config.logger.wandb, problems)
    return problems


def _check_model(config: Config, problems: Problems) -> None:
    if (config.model.path is None) == (config.model.package is None):
        problems.add(
            "model.path",
            "path and package both set" if config.model.path else "neither path nor package",
            "one of model.path (folder or hub id) and model.package",
            "pick a model (model=roberta-base) or a folder: model=local model.path=FOLDER",
        )


def reason_not_to_cache(config: Config, layer: int | None) -> str | None:
    """Why the hidden states in front of the prompt cannot or need not be kept; None if they can."""
    if config.model.dropout == "all":
        return "model.dropout=all changes them in every step"
    if config.strategy.name == "fsdp":
        return "strategy=fsdp spreads the layers that would read over the devices"
    if layer == 1:
        return "at prompt.layer=1 there is nothing below the prompt but the embeddings"
    return None


def _check_cache(config: Config, problems: Problems) -> None:
    reason = reason_not_to_cache(config, config.prompt.layer)
    if config.cache.mode == "on" and reason:
        problems.add("cache.mode", f"on, but {reason}", "auto or off")


def _check_task(config: Config, problems: Problems) -> None:
    task = config.task
    if task.task_type != "classification" and len(task.labels) != 2:
        problems.add("task.labels", f"{task.labels} with task.task_type={task.task_type}", "two")
    if task.task_type == "regression" and not _rising(task.labels):
        problems.add(
            "task.labels",
            str(task.labels),
            "the two ends of a range without -1, which means unknown: e.g. [0,5]",
        )
    if len(task.labels) < 2 or len(set(task.labels)) < len(task.labels):
        problems.add("task.labels", str(task.labels), "at least two, all distinct")
    if len(task.label_words) != len(task.labels):
        problems.add(
            "task.label_words",
            f"{len(task.label_words)} words for {len(task.labels)} labels",
            "one word for each entry of task.labels, in the same order",
        )
    _check_metrics(config, problems)
    for name in task.extra:
        if name in ("train", "dev", "test") or not re.fullmatch(r"[\w-]+", name):
            expected = "another name than train, dev, test, of letters, digits, - and _"
            problems.add("task.extra", repr(name), expected)
    if task.task_type == "multiple_choice" and task.row_expansion not in _CHOICES:
        problems.add(
            "task.task_type",
            f"choice with task.row_expansion={task.row_expansion}",
            f"task.row_expansion={' or '.join(_CHOICES)}: what gives candidates that compete",
        )
    if task.task_type == "regression" and config.loss == "vocabulary":
        problems.add("loss", "vocabulary for a number", "label_words, or null")


def _check_metrics(config: Config, problems: Problems) -> None:
    task = config.task
    named = {"task.metric": [task.metric], "task.metrics": task.metrics}
    named["task.test_metrics"] = task.test_metrics
    for name, extra in task.extra.items():
        named[f"task.extra.{name}.metrics"] = extra.metrics if extra is not None else []
    has = {
        "two labels": len(task.labels) == 2,
        "groups": task.row_expansion == "multirc",
        "gold answers": task.row_expansion == "record",
    }
    for key, names in named.items():
        for name in names:
            metric = METRICS.get(name)
            if metric is None:
                problems.add(key, repr(name), ", ".join(METRICS), did_you_mean(name, METRICS))
            elif task.task_type not in metric.task_type:
                fitting = ", ".join(n for n, m in METRICS.items() if task.task_type in m.task_type)
                problems.add(key, f"{name} with task.task_type={task.task_type}", fitting)
            elif metric.needs is not None and not has.get(metric.needs, True):
                problems.add(
                    key,
                    f"{name} with {len(task.labels)} labels and "
                    f"task.row_expansion={task.row_expansion}",
                    f"a task with {metric.needs}",
                )


def _rising(labels: Sequence[str]) -> bool:
    try:
        numbers = [float(label) for label in labels]
    except ValueError:
        return False
    rising = numbers == sorted(set(numbers)) and all(map(math.isfinite, numbers))
    return rising and not numbers[0] <= UNKNOWN <= numbers[-1]


def _check_prompt(config: Config, problems: Problems) -> None:
    prompt, depth = config.prompt, config.model.layers
    static = prompt.kind == "static"
    if prompt.layer is not None:
        check_layer(prompt.kind, prompt.layer, depth, config.model.name, problems)
    if static and prompt.bottleneck is not None:
        problems.add("prompt.bottleneck", str(prompt.bottleneck), "null for a static prompt")
    if not static and prompt.bottleneck is None:
        problems.add("prompt.bottleneck", "null", "a width, e.g. 128")
    if not static and prompt.init is not None:
        problems.add("prompt.init", prompt.init, "null: only a static prompt has a choice of init")


def check_layer(kind: str, layer: int, depth: int | None, model: str, problems: Problems) -> None:
    """Check prompt.layer against the depth of the model, where it is known."""
    if layer == 1 and kind != "static":
        problems.add(
            "prompt.layer",
            f"1 with the generator {kind}",
            "2 or more: a generator reads the hidden states below it",
            "raise prompt.layer, or take classic prompt tuning: prompt=static prompt.layer=1",
        )
    if depth is not None and layer > depth:
        problems.add("prompt.layer", str(layer), f"1 to {depth} for {model}")


def _check_data(config: Config, problems: Problems) -> None:
    data, task = config.data, config.task
    if data.protocol == "kshot" and data.k is None:
        problems.add("data.k", "null", "a number of training examples", "data.k=100")
    if data.protocol == "full" and data.k is not None:
        problems.add("data.k", f"{data.k} with data=full", "null", "data=kshot draws k examples")
    if data.k is not None and data.sampling == "total" and data.k < len(task.labels):
        problems.add("data.k", str(data.k), f"{len(task.labels)} or more: one a label")
    if data.path is not None and not Path(data.path).is_dir():
        problems.add("data.path", f"{data.path} is no folder", "a folder with the task's files")
    if data.root is not None and not Path(data.root).is_dir():
        problems.add("data.root", f"{data.root} is no folder", "a folder of tasks' folders")
    if data.path is not None and data.root is not None:
        problems.add("data.root", f"{data.root}, and data.path={data.path}", "one of the two")
    if data.path is None and data.root is None and task.default_path is None and task.hub is None:
        problems.add(
            "data.path",
            f"null, and task {task.name} is not on the hub",
            "a folder with the task's files",
            "data.path=FOLDER, or data.root=FOLDER with a folder for each task",
        )


def _check_trainer(config: Config, problems: Problems) -> None:
    trainer = config.trainer
    _exactly_one("trainer.max_steps", "trainer.max_epochs", trainer, problems)
    _exactly_one("trainer.eval_every_steps", "trainer.eval_every_epochs", trainer, problems)
    if trainer.max_steps is not None and trainer.eval_every_epochs is not None:
        problems.add(
            "trainer.eval_every_epochs",
            "set together with trainer.max_steps",
            "trainer.eval_every_steps, where training is counted in steps",
            "trainer.eval_every_epochs=null trainer.eval_every_steps=100",
        )
    for unit in ("steps", "epochs"):
        length, every = getattr(trainer, f"max_{unit}"), getattr(trainer, f"eval_every_{unit}")
        if length and every and length % every:
            problems.add(
                f"trainer.eval_every_{unit}",
                f"{every}, but training ends after {length}",
                f"a divisor of {length}: what comes after the last evaluation cannot be selected",
                f"trainer.eval_every_{unit}={_nearest_divisor(length, every)}",
            )
    if trainer.max_epochs and trainer.eval_every_steps and trainer.accumulate_grad_batches > 1:
        problems.add(
            "trainer.eval_every_steps",
            "set together with trainer.max_epochs and trainer.accumulate_grad_batches",
            "trainer.eval_every_epochs, where training is counted in epochs",
        )


def _nearest_divisor(length: int, every: int) -> int:
    divisors = [n for n in range(1, length + 1) if length % n == 0]
    return min(divisors, key=lambda n: abs(n - every))


def _exactly_one(first: str, second: str, node: Any, problems: Problems) -> None:
    values = [getattr(node, key.rpartition(".")[2]) for key in (first, second)]
    if (values[0] is None) == (values[1] is None):
        given = "both null" if values[0] is None else f"{values[0]}, and {second} is {values[1]}"
        problems.add(first, given, f"exactly one of {first} and {second}", f"{second}=null")


def _check_strategy(config: Config, problems: Problems) -> None:
    strategy = config.strategy
    processes = strategy.devices * strategy.num_nodes
    if strategy.name == "single" and processes > 1:
        problems.add(
            "strategy.devices",
            f"{processes} devices with strategy=single",
            "1",
            f"strategy=ddp strategy.devices={strategy.devices}",
        )
    half = config.model.dtype == "float16" or config.trainer.precision == "16-mixed"
    if half and strategy.accelerator != "gpu":
        problems.add(
            "model.dtype",
            f"{config.model.dtype} with trainer.precision={config.trainer.precision}",
            "16-bit floats on a GPU only (strategy.accelerator=gpu)",
            "model.dtype=bfloat16 trainer.precision=bf16-mixed",
        )
    if strategy.name == "fsdp" and strategy.accelerator == "cpu":
        problems.add("strategy.accelerator", "cpu with strategy=fsdp", "gpu")


def _check_resume(config: Config, problems: Problems) -> None:
    if config.resume is not None and config.overwrite:
        problems.add("resume", f"{config.resume} with overwrite=true", "one of the two")
    if config.resume not in (None, "auto"):
        if not Path(str(config.resume)).is_dir():
            problems.add("resume", f"{config.resume} is no folder", "auto, or the folder of a run")
        if config.run_dir not in (None, config.resume):
            given = f"{config.run_dir} with resume={config.resume}"
            problems.add("run_dir", given, "null, or resume=auto")
    if config.resume == "auto" and config.run_dir is None:
        problems.add("run_dir", "null with resume=auto", "the folder of the run that is to go on")


def _check_run_dir(config: Config, problems: Problems) -> None:
    if config.run_dir is None and config.strategy.num_nodes > 1:
        problems.add("run_dir", "null with several nodes", "a folder that all nodes see")
    run_dir = Path(config.run_dir or "runs").absolute()
    existing = next(path for path in (run_dir, *run_dir.parents) if path.exists())
    if not existing.is_dir():
        problems.add("run_dir", f"{existing} is a file", "a folder")
    elif not os.access(existing, os.W_OK):
        problems.add("run_dir", f"{existing} cannot be written to", "a folder of your own")
    if config.run_dir is None:
        return
    held = [path.name for path in existing_outputs(run_dir)]
    if held and not config.overwrite and config.resume is None and is_global_zero():
        what = "a finished run" if FINISHED in held else ", ".join(held)
        problems.add(
            "run_dir",
            f"{config.run_dir} holds {what}",
            "a new folder",
            "choose another run_dir, go on with an interrupted run (resume=auto), or replace it "
            "(overwrite=true)",
        )
