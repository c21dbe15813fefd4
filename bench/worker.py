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

from bench.baselines import MaskModel
from bench.clock import synchronize
from bench.flops import Shape
from bench.synthetic import TEMPLATE
from lpt.caching.fill import cache_hidden_states
from lpt.config.compose import compose_grid
from lpt.config.schema import Config
from lpt.data.batching import TrainBatchSampler
from lpt.data.datamodule import TaskDataModule
from lpt.models.backbone import load_model
from lpt.models.inputs import Batch
from lpt.training.callbacks.throughput import peak_memory_mib, reset_peak_memory
from lpt.training.module import build_model, build_module
from lpt.training.plan import Plan, prepare
from lpt.training.trainer import build_trainer

_ENDLESS = 1_000_000


class Pacer(Callback):
    """Lets the trainer run and time the number of steps that each line of the input requests.

    Args:
        spec: The row that is measured.
        shape: Sizes of the model.
        replies: Stream for the measurements.
    """

    def __init__(self, spec: dict[str, Any], shape: Shape, replies: TextIO) -> None:
        self.spec = spec
        self.shape = shape
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
        self.flop += _flop(self.spec, self.shape, *batch.attention_mask.shape)
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
                peak_mib=peak_memory_mib(device),
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
    """Full fine-tuning or LoRA."""

    def __init__(self, model: MaskModel) -> None:
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
    config = plan.config
    backbone = plan.backbone.config
    shape = Shape(backbone.num_hidden_layers, backbone.hidden_size, backbone.vocab_size)
    pacer = Pacer(spec, shape, replies)
    if spec["method"] == "prompt":
        module, data, trainer, cache_seconds = _late_prompt(config, plan)
    else:
        module, data, trainer = _baseline(config, plan, spec)
        cache_seconds = 0.0
    trainer.callbacks.append(pacer)  # type: ignore[attr-defined]
    work = _work_per_example(spec, shape, data)
    trainable = sum(p.numel() for p in module.parameters() if p.requires_grad)
    _reply(replies, cache_seconds=cache_seconds, trainable=trainable, **work)
    reset_peak_memory(trainer.strategy.root_device)  # excludes loading
    trainer.fit(module, datamodule=data)


def _config(spec: dict[str, Any]) -> Config:
    static = spec["layer"] == 1
    [config] = compose_grid(
        [
            "model=local",
            f"model.path={spec['model']}",
            f"model.dtype={spec['dtype']}",
            "task=sst2",
            f"data.path={spec['data']}",
            f"task.template={json.dumps(TEMPLATE)}",
            "task.label_words=[bad,good]",
            "task.files={train: train.tsv, dev: dev.tsv, test: test.tsv}",
            f"data.batch_size={spec['batch_size']}",
            f"data.bucketing={spec['bucketing']}",
            f"prompt={'static' if static else 'npg'}",
            f"prompt.layer={spec['layer']}",
            f"prompt.length={spec['prompt']}",
            f"model.dropout={spec['dropout']}",
            f"cache={'on' if spec['cache'] else 'off'}",
            f"cache.dir={spec['cache_dir']}",
            f"trainer.max_steps={_ENDLESS}",
            f"trainer.eval_every_steps={_ENDLESS}",
            "trainer.precision=32-true",
            f"strategy.accelerator={'gpu' if spec['device'] == 'cuda' else 'cpu'}",
            "logger=none",
        ]
    )
    return config


def _late_prompt(
    config: Config, plan: Plan
) -> tuple[LightningModule, TaskDataModule, Trainer, float]:
    model, identity = build_model(plan)
    data, module = _build_data(config, plan), build_module(plan, model)
    trainer = build_trainer(config, Path(os.environ["LPT_CACHE"]), model)
    started = time.perf_counter()
    cache_hidden_states(config, trainer, model.split, data, identity.fingerprint)
    return module, data, trainer, time.perf_counter() - started


def _baseline(
    config: Config, plan: Plan, spec: dict[str, Any]
) -> tuple[LightningModule, TaskDataModule, Trainer]:
    # Full fine-tuning keeps float32 weights; the weights that LoRA freezes have the row's dtype.
    full = spec["method"] == "full"
    mixed = full and spec["dtype"] == "bfloat16"
    dtype = torch.float32 if full else getattr(torch, spec["dtype"])
    model = MaskModel(
        load_model(plan.backbone, dtype=dtype, attention=config.model.attention), lora=not full
    )
    trainer = Trainer(
        accelerator=config.strategy.accelerator,
        devices=1,
        precision="bf16-mixed" if mixed else "32-true",
        max_steps=_ENDLESS,
        limit_val_batches=0,
        use_distributed_sampler=False,
        gradient_clip_val=1.0,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    return Baseline(model), _build_data(config, plan), trainer


def _build_data(config: Config, plan: Plan) -> TaskDataModule:
    return TaskDataModule(plan.config, plan.splits, plan.encoder, plan.word_ids)


def _flop(spec: dict[str, Any], shape: Shape, rows: int, tokens: int) -> float:
    method, layer, prompt = spec["method"], spec["layer"], spec["prompt"]
    return shape.step(method, rows, tokens, layer=layer, prompt=prompt, cached=spec["cache"])


def _work_per_example(spec: dict[str, Any], shape: Shape, data: TaskDataModule) -> dict[str, float]:
    """Mean FLOP per training example and padding share, over one pass of the data."""
    lengths = data.packed["train"].row_lengths().tolist()
    bucketed = lengths if spec["bucketing"] else None
    sampler = TrainBatchSampler(
        len(lengths), data.config.data.batch_size, data.config.seed, lengths=bucketed
    )
    widest = [(len(batch), max(lengths[i] for i in batch)) for batch in sampler]
    padded_tokens = sum(rows * tokens for rows, tokens in widest)
    return {
        "flop_per_example": sum(_flop(spec, shape, *batch) for batch in widest) / len(lengths),
        "padding": 1 - sum(lengths) / padded_tokens,
    }


def _reply(replies: TextIO, **what: float) -> None:
    print(json.dumps(what), file=replies, flush=True)


if __name__ == "__main__":
    main()
