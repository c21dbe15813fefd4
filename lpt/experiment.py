"""One run: check everything, build the parts, train, score, write down.

`run` is the whole story in a few lines; `prepare` does all that can fail because of the user's input,
before any weights are loaded.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from lightning import Callback, Trainer, seed_everything
from omegaconf import OmegaConf
from rich.console import Console

from lpt.artifact import BackboneIdentity, PromptDescription, save_adapter
from lpt.callbacks import DevHistory, Meter, best_checkpoint, peak_memory_mb
from lpt.config import Config
from lpt.data.datamodule import LatePromptData
from lpt.data.sources import Folder, Hub, Source
from lpt.data.splits import Splits, make_splits
from lpt.data.tasks import Task, make_task
from lpt.data.templates import MASK, Encoder
from lpt.errors import HubError, Problems
from lpt.metrics import Predictions
from lpt.models.backbone import Backbone, find_backbone, fingerprint, load_model
from lpt.models.generators import build_generator, vocabulary_start
from lpt.models.late_prompt import LabelScorer, LatePrompt
from lpt.models.split import SplitModel
from lpt.models.verbalizer import word_ids
from lpt.module import LatePromptModule
from lpt.results import (
    FINISHED,
    PREDICTIONS,
    environment,
    majority_scores,
    prediction_scores,
    print_table,
    write_metrics,
    write_predictions,
)
from lpt.run_dir import claim_run_dir, log_to
from lpt.tracking import finish_loggers
from lpt.training import build_trainer
from lpt.validation import check_layer, validate

logger = logging.getLogger(__name__)
_C = TypeVar("_C", bound=Callback)


@dataclass(frozen=True)
class Plan:
    """Everything a run needs besides weights, checked.

    Attributes:
        backbone: The frozen model's config and tokenizer.
        task: The task for that kind of model.
        splits: Train, dev and test rows.
        encoder: Renders and tokenizes them.
        word_ids: Token of each label's word.
        layer: First layer that sees the prompt.
    """

    backbone: Backbone
    task: Task
    splits: Splits
    encoder: Encoder
    word_ids: list[int]
    layer: int


def run(config: Config) -> dict[str, Any] | None:
    """Train and score one late prompt.

    Returns:
        What metrics.json holds; None for a dry run.

    Raises:
        ConfigError: Something about the input is wrong; nothing was written.
    """
    if config.dry_run:
        return dry_run(config)
    plan = prepare(config)
    run_dir = claim_run_dir(config, plan.layer)
    with log_to(run_dir):
        seed_everything(config.seed, workers=True, verbose=False)
        data = build_data(config, plan)
        model, identity = build_model(config, plan)
        module = build_module(config, plan, model)
        trainer = build_trainer(config, run_dir, plan.backbone)
        resolved = resolve(config, run_dir, plan.layer)
        metrics = fit_and_score(config, plan, trainer, module, data)
        if trainer.is_global_zero:
            leave(resolved, plan, run_dir, trainer, module, identity, metrics)
        finish_loggers(config.logger)
    return metrics


def prepare(config: Config) -> Plan:
    """Check configuration, backbone, label words, template and data.

    Raises:
        ConfigError: Every problem found, in one message.
    """
    problems = validate(config)
    backbone = task = splits = encoder = ids = None
    depth = config.model.layers
    with problems.collect():
        backbone = find_backbone(**_backbone_arguments(config))
        depth = backbone.layers
        _check_backbone(config, backbone, problems)
    with problems.collect():
        task = _build_task(config, backbone)
    if backbone is not None:
        with problems.collect():
            ids = word_ids(backbone.tokenizer, config.task.words)
    if backbone is not None and task is not None:
        with problems.collect():
            encoder = Encoder(
                backbone.tokenizer, task.template, task.words, config.data.max_length
            )
    if task is not None and not problems.concern("data.path", "data.k", "task."):
        with problems.collect():
            splits = _read_splits(config, task)
    problems.raise_if_any()
    assert backbone is not None
    assert task is not None
    assert splits is not None
    assert encoder is not None
    assert ids is not None
    layer = config.prompt.layer if config.prompt.layer is not None else depth // 2 + 1
    return Plan(backbone, task, splits, encoder, ids, layer)


def dry_run(config: Config) -> None:
    """Print the resolved configuration and check what can be checked without loading weights.

    Raises:
        ConfigError: A problem other than an unreachable hub.
    """
    console = Console()
    console.print(OmegaConf.to_yaml(OmegaConf.structured(config)), markup=False, highlight=False)
    try:
        plan = prepare(config)
    except HubError as error:
        console.print(f"Not checked, for want of the hub:\n{error.listing}", markup=False)
        return
    sizes = ", ".join(f"{len(part)} {name}" for name, part in plan.splits.items())
    console.print(f"Everything checked. {sizes}; prompt at layer {plan.layer}. Nothing was started.")


def build_data(config: Config, plan: Plan) -> LatePromptData:
    """Encode the three sets."""
    steps = config.trainer.max_steps
    tokenizer = plan.backbone.tokenizer
    pad = tokenizer.pad_token_id
    return LatePromptData(
        plan.splits,
        plan.encoder,
        word_ids=plan.word_ids,
        pad_id=pad if pad is not None else 0,  # masked out everywhere
        batch_size=config.data.batch_size,
        eval_batch_size=config.data.eval_batch_size,
        seed=config.seed,
        train_batches=steps * config.trainer.accumulate_grad_batches if steps else None,
        score_all_labels=config.loss == "label_words",
        num_workers=config.data.num_workers,
    )


def build_model(config: Config, plan: Plan) -> tuple[LatePrompt, BackboneIdentity]:
    """Load the backbone, split it, and put a fresh generator in."""
    model, prompt = config.model, config.prompt
    loaded = load_model(
        plan.backbone, dtype=getattr(torch, model.dtype), attention=model.attention
    )
    identity = BackboneIdentity(
        **_backbone_arguments(config),
        model_type=plan.backbone.config.model_type,
        dtype=model.dtype,
        attention=model.attention,
        fingerprint=fingerprint(loaded),
    )
    split = SplitModel(loaded, plan.layer)
    start = vocabulary_start(split, prompt.length) if prompt.init == "vocab" else None
    generator = build_generator(
        prompt.kind,
        hidden_size=split.hidden_size,
        length=prompt.length,
        bottleneck=prompt.bottleneck,
        init=start,
    )
    rate = prompt.dropout if prompt.dropout is not None else plan.backbone.hidden_dropout
    return LatePrompt(
        split, generator, prompt_dropout=rate, frozen_dropout=model.dropout
    ), identity


def build_module(config: Config, plan: Plan, model: LatePrompt) -> LatePromptModule:
    """The Lightning module around the model."""
    optim = config.optim
    return LatePromptModule(
        model,
        LabelScorer(plan.backbone.family.kind, plan.word_ids),
        labels=len(plan.task.labels),
        metrics=plan.task.metrics,
        loss=config.loss,
        lr=optim.lr,
        weight_decay=optim.weight_decay,
        warmup_ratio=optim.warmup_ratio,
        schedule=optim.schedule,
        eps=optim.eps,
    )


def fit_and_score(
    config: Config, plan: Plan, trainer: Trainer, module: LatePromptModule, data: LatePromptData
) -> dict[str, Any]:
    """Zero-shot scores, training, one scoring of test with the best checkpoint."""
    started = time.perf_counter()
    zero_shot = _zero_shot(plan, trainer, module, data)
    trainer.fit(module, datamodule=data)
    checkpoint = trainer.checkpoint_callback
    best_path = getattr(checkpoint, "best_model_path", None)
    history = _callback(trainer, DevHistory)
    best = history.best(plan.task.metric)
    trainer.test(module, datamodule=data, ckpt_path=best_path, verbose=False, weights_only=True)
    assert module.predictions is not None
    names, count = plan.task.metrics, len(plan.task.labels)
    meter = _callback(trainer, Meter)
    sets = dict(plan.splits.items())
    trainable = sum(p.numel() for p in module.model.trainable().values())
    return {
        "task": plan.task.name,
        "model": {**dataclasses.asdict(config.model), "layers": plan.backbone.layers},
        "prompt": {**dataclasses.asdict(config.prompt), "layer": plan.layer},
        "protocol": {
            "name": config.data.protocol,
            "k": config.data.k,
            "dev_k": config.data.dev_k,
            "draw": config.data.draw,
            "data_seed": config.data.seed,
            "origin": plan.splits.origin,
            "sizes": {name: len(part) for name, part in sets.items()},
            "truncated": {name: part.truncated for name, part in data.encoded.items()},
            "split_sha256": plan.splits.checksum(),
        },
        "seed": config.seed,
        "loss": config.loss,
        "metrics": list(names),
        "selection": {"metric": names[0], "step": int(best["step"]), "value": best[names[0]]},
        "dev": {name: best[name] for name in names},
        "test": prediction_scores(module.predictions, names, count),
        "majority": {
            split: majority_scores(sets["train"], sets[split], names, count)
            for split in ("dev", "test")
        },
        "zero_shot": zero_shot,
        "dev_history": history.history,
        "parameters": {
            "trainable": trainable,
            "total": sum(p.numel() for p in module.model.parameters()),
        },
        "speed": {
            "train_seconds": meter.seconds,
            "examples_per_second": meter.examples_per_second,
            "total_seconds": time.perf_counter() - started,
        },
        "peak_memory_mb": peak_memory_mb(),
        "environment": environment(),
    }


def leave(
    resolved: Config,
    plan: Plan,
    run_dir: Path,
    trainer: Trainer,
    module: LatePromptModule,
    identity: BackboneIdentity,
    metrics: dict[str, Any],
) -> None:
    """Write what a run leaves behind, metrics.json last, and print the table."""
    prompt, task = resolved.prompt, plan.task
    OmegaConf.save(OmegaConf.structured(resolved), run_dir / "config.yaml")
    save_adapter(
        module.model,
        run_dir / "adapter",
        backbone=identity,
        prompt=PromptDescription(prompt.kind, plan.layer, prompt.length, prompt.bottleneck),
        task={
            "name": task.name,
            "kind": task.template.kind,
            "template": task.template.text,
            "labels": task.labels,
            "words": task.words,
            "max_length": resolved.data.max_length,
        },
    )
    assert isinstance(module.predictions, Predictions)
    write_predictions(run_dir / PREDICTIONS, module.predictions, task.labels)
    metrics["run_dir"] = str(run_dir)
    if metrics["test"] is None:
        logger.warning("The test set has no labels: it was predicted, but not scored.")
    for tracker in trainer.loggers:
        tracker.log_metrics(_summary(metrics), step=trainer.global_step)
        tracker.finalize("success")
    write_metrics(run_dir / FINISHED, metrics)
    print_table(metrics, Console())


def resolve(config: Config, run_dir: Path, layer: int) -> Config:
    """The configuration with every default filled in."""
    prompt = dataclasses.replace(config.prompt, layer=layer)
    return dataclasses.replace(config, prompt=prompt, run_dir=str(run_dir))


def _zero_shot(
    plan: Plan, trainer: Trainer, module: LatePromptModule, data: LatePromptData
) -> dict[str, dict[str, float] | None]:
    """Scores of the language model without a prompt, on dev and test."""
    names, count = plan.task.metrics, len(plan.task.labels)
    scores: dict[str, dict[str, float] | None] = {}
    module.prompted = False
    for split, evaluate in (("dev", trainer.validate), ("test", trainer.test)):
        evaluate(module, datamodule=data, verbose=False)
        assert module.predictions is not None
        scores[split] = prediction_scores(module.predictions, names, count)
    module.prompted = True
    return scores


def _summary(metrics: dict[str, Any]) -> dict[str, float]:
    """Final scores under the names that every tracker shows."""
    summary: dict[str, float] = {}
    for kind in ("majority", "zero_shot"):
        for split, scores in metrics[kind].items():
            summary |= {f"{kind}/{split}/{k}": v for k, v in (scores or {}).items()}
    for split in ("dev", "test"):
        summary |= {f"final/{split}/{k}": v for k, v in (metrics[split] or {}).items()}
    return summary


def _backbone_arguments(config: Config) -> dict[str, Any]:
    model = config.model
    return {
        "name": model.name,
        "path": model.path,
        "revision": model.revision,
        "package": model.package,
        "gguf_file": model.gguf_file,
    }


def _build_task(config: Config, backbone: Backbone | None) -> Task:
    task = config.task
    if backbone is not None:
        kind = backbone.family.kind
    else:  # the model is at fault already; check the data with the likelier template
        kind = "masked" if MASK in (task.template or MASK) else "causal"
    return make_task(
        name=task.name,
        kind=kind,
        templates=task.templates,
        template=task.template,
        labels=task.labels,
        words=task.words,
        label_column=task.label_column,
        aliases=task.aliases,
        metric=task.metric,
        metrics=task.metrics,
    )


def _build_source(config: Config) -> Source:
    task = config.task
    path = config.data.path
    if path is None and task.hub is None:
        path = task.default_path
    if path is not None:
        return Folder(Path(path), task.files, task.header)
    assert task.hub is not None
    return Hub(
        task.hub,
        task.hub_config,
        task.hub_splits,
        task.label_column,
        task.hub_label_column,
        task.hub_labels,
    )


def _read_splits(config: Config, task: Task) -> Splits:
    data = config.data
    return make_splits(
        _build_source(config),
        task,
        protocol=data.protocol,
        k=data.k,
        dev_k=data.dev_k,
        draw=data.draw,
        seed=data.seed,
        limits=(data.limit_train, data.limit_dev, data.limit_test),
    )


def _check_backbone(config: Config, backbone: Backbone, problems: Problems) -> None:
    prompt, name = config.prompt, config.model.name
    if prompt.layer is not None and config.model.layers is None:
        check_layer(prompt.kind, prompt.layer, backbone.layers, name, problems)
    if config.model.layers is not None and config.model.layers != backbone.layers:
        problems.add(
            "model.layers", str(config.model.layers), f"{backbone.layers}, as {name} has", "null"
        )
    if backbone.max_length is not None and config.data.max_length > backbone.max_length:
        problems.add(
            "data.max_length",
            str(config.data.max_length),
            f"1 to {backbone.max_length} for {name}: it has no more positions",
        )


def _callback(trainer: Trainer, kind: type[_C]) -> _C:
    return next(c for c in trainer.callbacks if isinstance(c, kind))  # type: ignore[attr-defined]
