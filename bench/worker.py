"""One row of the benchmark in a process of its own: a real trainer that steps when it is told to.

Reads a number of steps a line from standard input, and answers with a line of JSON for each.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any, TextIO

import torch
from hydra import compose, initialize_config_dir
from lightning import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor

from bench.baselines import MaskModel
from bench.clock import synchronize
from bench.flops import Shape
from bench.synthetic import TEMPLATE
from lpt.config.schema import Config, register, to_config
from lpt.data.batching import ShuffledBatches
from lpt.data.datamodule import LatePromptData
from lpt.methods.late_prompt import Batch
from lpt.models.backbone import load_model
from lpt.training.build import build_data, build_model, build_module, precompute_hidden_states
from lpt.training.callbacks.memory import peak_memory_mb, reset_peak_memory
from lpt.training.plan import Plan, prepare
from lpt.training.trainer import build_trainer

_CONF = Path(__file__).parents[1] / "conf"
_ENDLESS = 1_000_000


class Pacer(Callback):
    """Lets the trainer go on for as many steps as each line of the input says, and times them.

    Args:
        spec: The row that is measured.
        shape: Sizes of the model.
        answers: Where the measurements go.
    """

    def __init__(self, spec: dict[str, Any], shape: Shape, answers: TextIO) -> None:
        self.spec = spec
        self.shape = shape
        self.answers = answers
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
        """Count; at the last of the steps answer and wait."""
        self.flop += _flop(self.spec, self.shape, *batch.attention_mask.shape)
        self.examples += len(batch.labels)
        self.steps -= 1
        if self.steps == 0:
            synchronize(self.spec["device"])
            device = trainer.strategy.root_device
            seconds = time.perf_counter() - self.since
            _say(
                self.answers,
                seconds=seconds,
                examples=self.examples,
                flop=self.flop,
                peak_mb=peak_memory_mb(device),
            )
            self._wait()

    def _wait(self) -> None:
        line = sys.stdin.readline()
        if not line:
            os._exit(0)  # there is nothing to be saved
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
        """Without dropout, as the other rows."""
        self.eval()

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """Loss of one batch."""
        loss: Tensor = self.model(batch)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch.labels))
        return loss

    def configure_optimizers(self) -> Any:
        """AdamW over what trains."""
        return torch.optim.AdamW([p for p in self.parameters() if p.requires_grad], lr=1e-5)


def main() -> None:
    """Build the row that the first argument describes, and train it as told."""
    spec = json.loads(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else is printed goes to the log
    seed_everything(0, verbose=False)
    config = _config(spec)
    plan = prepare(config)
    known = plan.backbone.config
    shape = Shape(known.num_hidden_layers, known.hidden_size, known.vocab_size)
    pacer = Pacer(spec, shape, answers)
    if spec["method"] == "prompt":
        module, data, trainer, cached = _late_prompt(config, plan)
    else:
        module, data, trainer = _baseline(config, plan, spec)
        cached = {"seconds": 0.0}
    trainer.callbacks.append(pacer)  # type: ignore[attr-defined]
    work = _work_an_example(spec, shape, data)
    trainable = sum(p.numel() for p in module.parameters() if p.requires_grad)
    _say(answers, cache_seconds=cached["seconds"], trainable=trainable, **work)
    reset_peak_memory(trainer.strategy.root_device)  # without what loading took
    trainer.fit(module, datamodule=data)


def _config(spec: dict[str, Any]) -> Config:
    register()
    static = spec["layer"] == 1
    with initialize_config_dir(str(_CONF), version_base="1.3"):
        composed = compose(
            "train",
            overrides=[
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
            ],
        )
    return to_config(composed)


def _late_prompt(
    config: Config, plan: Plan
) -> tuple[LightningModule, LatePromptData, Trainer, dict[str, Any]]:
    model, identity = build_model(config, plan)
    data, module = build_data(config, plan), build_module(config, plan, model)
    trainer = build_trainer(config, Path(os.environ["LPT_CACHE"]), plan.backbone, model)
    cached = precompute_hidden_states(config, plan, trainer, model, identity, data)
    return module, data, trainer, cached


def _baseline(
    config: Config, plan: Plan, spec: dict[str, Any]
) -> tuple[LightningModule, LatePromptData, Trainer]:
    # Full fine-tuning keeps float32 weights; what LoRA freezes is in the type of the row.
    full = spec["method"] == "full"
    mixed = full and spec["dtype"] == "bfloat16"
    dtype = torch.float32 if full else getattr(torch, spec["dtype"])
    model = MaskModel(
        load_model(plan.backbone, dtype=dtype, attention=plan.attention), lora=not full
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
    return Baseline(model), build_data(config, plan), trainer


def _flop(spec: dict[str, Any], shape: Shape, rows: int, tokens: int) -> float:
    method, layer, prompt = spec["method"], spec["layer"], spec["prompt"]
    return shape.step(method, rows, tokens, layer=layer, prompt=prompt, cached=spec["cache"])


def _work_an_example(spec: dict[str, Any], shape: Shape, data: LatePromptData) -> dict[str, float]:
    """Mean operations of a training example, and share of padding, over one pass of the data."""
    lengths = data.packed["train"].row_lengths().tolist()
    bucketed = lengths if spec["bucketing"] else None
    sampler = ShuffledBatches(len(lengths), data.batch_size, data.seed, lengths=bucketed)
    widest = [(len(batch), max(lengths[i] for i in batch)) for batch in sampler]
    places = sum(rows * tokens for rows, tokens in widest)
    return {
        "flop_an_example": sum(_flop(spec, shape, *batch) for batch in widest) / len(lengths),
        "padding": 1 - sum(lengths) / places,
    }


def _say(answers: TextIO, **what: float) -> None:
    print(json.dumps(what), file=answers, flush=True)


if __name__ == "__main__":
    main()
