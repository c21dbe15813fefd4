"""Worker for one row of the benchmark: a real trainer that trains on request.

Each line of standard input is a number of steps; the reply is a line of JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any, TextIO

import torch
from lightning import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor

from bench.baselines import PeftLora
from bench.clock import synchronize
from bench.flops import Loss, StepWork
from bench.synthetic import TEMPLATE
from lpt.caching.fill import cache_hidden_states
from lpt.config.compose import compose_grid
from lpt.config.schema import Config
from lpt.data.batching import TrainBatchSampler
from lpt.data.datamodule import TaskDataModule
from lpt.methods.registry import build_method
from lpt.models.backbone import empty_model, load_model
from lpt.models.inputs import Batch
from lpt.models.scoring import sequence_losses
from lpt.training.callbacks.throughput import peak_memory_mb, reset_peak_memory
from lpt.training.module import build_model, build_module
from lpt.training.plan import Plan, prepare
from lpt.training.trainer import build_trainer

_ENDLESS = 1_000_000


class Pacer(Callback):
    """Lets the trainer run and time the number of steps that each line of the input requests.

    Args:
        spec: The row that is measured.
        work: Operations of a step.
        replies: Stream for the measurements.
    """

    def __init__(self, spec: dict[str, Any], work: StepWork, replies: TextIO) -> None:
        self.spec = spec
        self.work = work
        self.replies = replies
        self.steps = self.examples = 0
        self.flop = self.since = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Wait for the first line."""
        self._wait()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Count steps; after the last one, reply and wait for the next request."""
        self.flop += self.work(*batch.attention_mask.shape)
        self.examples += len(batch.labels)
        self.steps -= 1
        if self.steps == 0:
            synchronize(self.spec["device"])
            device = trainer.strategy.root_device
            seconds = time.perf_counter() - self.since
            _reply(
                self.replies,
                seconds=seconds,
                examples=self.examples,
                flop=self.flop,
                peak_mb=peak_memory_mb(device),
            )
            self._wait()

    def _wait(self) -> None:
        line = sys.stdin.readline()
        if not line:
            os._exit(0)  # skip teardown: nothing to save
        self.steps = int(line)
        self.flop, self.examples = 0.0, 0
        synchronize(self.spec["device"])
        self.since = time.perf_counter()


class Baseline(LightningModule):
    """LoRA as PEFT has it."""

    def __init__(self, model: PeftLora) -> None:
        super().__init__()
        self.model = model

    def on_fit_start(self) -> None:
        """Disable dropout, as in the other rows."""
        self.eval()

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """Loss of one batch."""
        loss: Tensor = self.model(batch)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch.labels))
        return loss

    def configure_optimizers(self) -> Any:
        """AdamW over the trainable parameters."""
        return torch.optim.AdamW([p for p in self.parameters() if p.requires_grad], lr=1e-5)


def main() -> None:
    """Build what the first argument describes, and train on request."""
    spec = json.loads(sys.argv[1])
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # anything else that is printed goes to the log
    seed_everything(0, verbose=False)
    plan = prepare(_config(spec))
    width = plan.backbone.config.hidden_size if spec["cache"] else None
    work = StepWork(_loss_without_weights(plan, spec), width)
    pacer = Pacer(spec, work, replies)
    build = _baseline if spec["plain"] else _method
    module, data, trainer, cache_seconds = build(plan)
    trainer.callbacks.append(pacer)  # type: ignore[attr-defined]
    trainable = sum(p.numel() for p in module.parameters() if p.requires_grad)
    sizes = _work_per_example(spec, work, data)
    _reply(replies, cache_seconds=cache_seconds, trainable=trainable, **sizes)
    reset_peak_memory(trainer.strategy.root_device)  # excludes loading
    trainer.fit(module, datamodule=data)


def _config(spec: dict[str, Any]) -> Config:
    mixed = spec["method"] == "full" and spec["dtype"] == "bfloat16"  # it keeps float32 weights
    [config] = compose_grid(
        [
            "model=local",
            f"model.path={spec['model']}",
            f"model.dtype={'float32' if mixed else spec['dtype']}",
            "task=sst2",
            f"data.path={spec['data']}",
            f"task.template={json.dumps(TEMPLATE)}",
            "task.label_words=[bad,good]",
            "task.files={train: train.tsv, dev: dev.tsv, test: test.tsv}",
            f"data.batch_size={spec['batch_size']}",
            f"data.bucketing={spec['bucketing']}",
            f"method={spec['method']}",
            *_layer(spec),
            f"model.dropout={spec['dropout']}",
            f"cache={'on' if spec['cache'] else 'off'}",
            f"cache.dir={spec['cache_dir']}",
            f"trainer.max_steps={_ENDLESS}",
            f"trainer.eval_every_steps={_ENDLESS}",
            f"trainer.precision={'bf16-mixed' if mixed else '32-true'}",
            f"strategy.accelerator={'gpu' if spec['device'] == 'cuda' else 'cpu'}",
            "logger=none",
        ]
    )
    return config


def _layer(spec: dict[str, Any]) -> list[str]:
    layer = spec["layer"]
    if spec["method"] != "late_prompt":
        return [f"method.layer={layer}"]
    kind = "static" if layer == 1 else "npg"
    return [f"prompt={kind}", f"prompt.layer={layer}", f"prompt.length={spec['prompt']}"]


def _method(plan: Plan) -> tuple[LightningModule, TaskDataModule, Trainer, float]:
    model, identity = build_model(plan)
    data, module = _build_data(plan), build_module(plan, model)
    trainer = build_trainer(plan.config, Path(os.environ["LPT_CACHE"]), model)
    started = time.perf_counter()
    cache_hidden_states(plan.config, trainer, model.split, data, identity.fingerprint)
    return module, data, trainer, time.perf_counter() - started


def _baseline(plan: Plan) -> tuple[LightningModule, TaskDataModule, Trainer, float]:
    dtype = getattr(torch, plan.config.model.dtype)
    # sdpa is the choice of transformers, in any precision.
    model = PeftLora(load_model(plan.backbone, dtype=dtype, attention="sdpa"))
    trainer = Trainer(
        accelerator=plan.config.strategy.accelerator,
        devices=1,
        max_steps=_ENDLESS,
        limit_val_batches=0,
        use_distributed_sampler=False,
        gradient_clip_val=1.0,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    return Baseline(model), _build_data(plan), trainer, 0.0


def _build_data(plan: Plan) -> TaskDataModule:
    return TaskDataModule(plan.config, plan.splits, plan.encoder, plan.word_ids)


def _loss_without_weights(plan: Plan, spec: dict[str, Any]) -> Loss:
    model = empty_model(plan.backbone, torch.float32)
    model.set_attn_implementation("eager")
    if spec["plain"]:
        return PeftLora(model).to("meta")
    method = build_method(plan.config, model, None).train().to("meta")
    return lambda batch: sequence_losses(method(batch), batch, len(batch.labels)).mean()


def _work_per_example(
    spec: dict[str, Any], work: StepWork, data: TaskDataModule
) -> dict[str, float]:
    """Mean FLOP per training example and padding share, over one pass of the data."""
    lengths = data.packed["train"].row_lengths().tolist()
    bucketed = lengths if spec["bucketing"] else None
    sampler = TrainBatchSampler(
        len(lengths), data.config.data.batch_size, data.config.seed, lengths=bucketed
    )
    widest = [(len(batch), max(lengths[i] for i in batch)) for batch in sampler]
    padded_tokens = sum(rows * tokens for rows, tokens in widest)
    return {
        "flop_per_example": sum(work(*batch) for batch in widest) / len(lengths),
        "padding": 1 - sum(lengths) / padded_tokens,
    }


def _reply(replies: TextIO, **what: float) -> None:
    print(json.dumps(what), file=replies, flush=True)


if __name__ == "__main__":
    main()
