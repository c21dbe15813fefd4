"""The Lightning module: loss, scores, what is optimized, what a checkpoint holds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from lightning import LightningModule
from lightning.pytorch.strategies import FSDPStrategy
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import get_scheduler

from lpt.config.schema import OptimConfig
from lpt.data.eval_output import EvalOutput
from lpt.errors import RunError
from lpt.methods.base import Method
from lpt.methods.registry import build_method
from lpt.models.backbone import load_model
from lpt.models.inputs import Batch
from lpt.models.scoring import LabelScorer
from lpt.runs.adapter import BackboneIdentity, identify_backbone
from lpt.training.distributed import world_size
from lpt.training.evaluation import Evaluator
from lpt.training.metrics import Predictions, gather_predictions
from lpt.training.plan import Plan


class MethodModule(LightningModule):
    """Trains a `Method`; only its trainable part is saved.

    Args:
        model: The model.
        scorer: Label scores and loss.
        evaluator: Computes predictions and metrics of the sets.
        loss: `vocabulary` or `label_words`.
        optim: AdamW and its schedule.
    """

    def __init__(
        self,
        model: Method,
        scorer: LabelScorer,
        evaluator: Evaluator,
        loss: str,
        optim: OptimConfig,
    ) -> None:
        super().__init__()
        self.model = model
        self.scorer = scorer
        self.evaluator = evaluator
        self.loss_over = loss
        self.optim = optim
        self.tuned = True
        self.predictions: list[Predictions] = []
        self.eval_scores: Predictions | None = None
        self.eval_output: EvalOutput | None = None
        self.eval_metrics: dict[str, float] | None = None
        self.grad_norm: Tensor | None = None
        self.accumulate = 1  # batches per optimizer step
        self.step_sizes, self.position = [1], 0  # of the batches of a step; this one among them
        self.step_means: Tensor | float = 0.0  # loss and padding of the step, up to this batch
        self.strict_loading = False  # checkpoints hold no frozen weights

    def on_fit_start(self) -> None:
        self.model.train()  # transformers loads in eval mode, and Lightning keeps the mode

    def on_train_batch_start(self, _: Batch, batch_idx: int) -> None:
        """Note the sizes of all batches that are accumulated into the optimizer step at hand."""
        self.accumulate = self.trainer.accumulate_grad_batches
        loader: Any = self.trainer.train_dataloader
        number = self.trainer.fit_loop.epoch_loop.total_batch_idx
        self.step_sizes = loader.batch_sampler.accumulated_sizes(number, self.accumulate)
        self.position = batch_idx % self.accumulate

    def training_step(self, batch: Batch, _: int) -> dict[str, Tensor]:
        """Loss of one batch; the mean over all examples of an optimizer step is logged.

        Returns:
            `loss`: weighted by the share of the examples of the step, so that the gradient is that
            of their mean, also where batches or ranks have unequal shares: DDP takes the mean over
            ranks, and Lightning divides by `accumulate_grad_batches`. `mean`: mean over the
            examples of all ranks in this batch.
        """
        scorer = self.model.scorer(self.scorer)
        words_only = self.loss_over == "label_words" and scorer.words_only
        logits = self.model(batch, words_only=words_only)
        loss = scorer.loss(logits, batch, self.loss_over)
        size, padding = len(batch.labels), 1.0 - batch.attention_mask.float().mean()
        means = torch.stack([loss.detach().float(), padding])
        if (ranks := world_size()) > 1:
            weighted = torch.cat([torch.ones_like(means[:1]), means]) * size
            examples, *sums = self.trainer.strategy.reduce(weighted, reduce_op="sum")
            means = torch.stack(sums) / examples
            loss = loss * (size * ranks / examples)
        loss = loss + self.model.regularization()
        share = self.step_sizes[self.position] / sum(self.step_sizes)
        self.step_means = means * share + (self.step_means if self.position > 0 else 0.0)
        if self.position == len(self.step_sizes) - 1:
            self.log("train/loss", self.step_means[0], prog_bar=True, batch_size=size)
            self.log("train/padding", self.step_means[1], batch_size=size)
        return {"loss": loss * (share * self.accumulate), "mean": means[0]}

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the norm of the gradient; under FSDP, average it over the ranks first.

        The norm before clipping is logged, and kept as `grad_norm` for callbacks.
        """
        trainable = list(self.model.trainable().values())
        if isinstance(self.trainer.strategy, FSDPStrategy):
            for parameter in trainable:
                if parameter.grad is not None:
                    parameter.grad = self.trainer.strategy.reduce(parameter.grad, reduce_op="mean")
        max_norm = gradient_clip_val if gradient_clip_val is not None else math.inf
        self.grad_norm = clip_grad_norm_(trainable, max_norm)
        self.log("train/grad_norm", self.grad_norm)

    def validation_step(self, batch: Batch, _: int) -> None:
        """Score all labels of one batch."""
        scorer = self.model.scorer(self.scorer) if self.tuned else self.scorer
        logits = self.model(batch, tuned=self.tuned, words_only=scorer.words_only)
        self.predictions.append(Predictions(batch.row_ids, scorer(logits, batch)))

    test_step = validation_step

    def on_validation_epoch_end(self) -> None:
        self._evaluate("dev")

    def on_test_epoch_end(self) -> None:
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        self._evaluate(data.test_set)

    def _evaluate(self, name: str) -> None:
        """Gather the predictions for a set and log its metrics as `SET/NAME`."""
        predictions, self.predictions = gather_predictions(self.predictions), []
        self.eval_scores = predictions
        self.eval_output = self.evaluator.predict(name, predictions)
        self.eval_metrics = self.evaluator.metrics(name, self.eval_output)
        if self.eval_metrics is not None and self.tuned:
            logged = {f"{name}/{metric}": value for metric, value in self.eval_metrics.items()}
            self.log_dict(logged, prog_bar=True, rank_zero_only=False, sync_dist=False)

    def configure_optimizers(self) -> Any:
        """AdamW and its per-step schedule over all steps of the run."""
        optimizer = build_optimizer(self.model.trainable(), self.optim)
        steps = int(self.trainer.estimated_stepping_batches)
        self.model.start_training(steps)
        schedule = build_schedule(optimizer, self.optim, steps)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    def optimizer_step(self, *args: Any, **options: Any) -> None:
        """One step of the optimizer, and what the method does after it."""
        super().optimizer_step(*args, **options)
        self.model.after_step(self.trainer.global_step + 1)  # not counted yet

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the trainable part only: megabytes, not gigabytes."""
        checkpoint["method"] = self.model.training_state()
        trainable = self._trainable().items()
        checkpoint["state_dict"] = {key: parameter.detach() for key, parameter in trainable}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Load the trainable part; nothing of the checkpoint's tensors is left to Lightning.

        Raises:
            RunError: Names or shapes differ from the trainable tensors of this model.
        """
        states = (self._trainable(), checkpoint["state_dict"])
        expected, saved = ({(key, *state[key].shape) for key in state} for state in states)
        if differences := sorted(expected ^ saved):
            raise RunError(f"{self.trainer.ckpt_path} does not match this model: {differences}.")
        self.load_trainable(checkpoint["state_dict"])
        checkpoint["state_dict"] = {}
        self.model.load_training_state(checkpoint["method"])

    @torch.no_grad()
    def load_trainable(self, state: Mapping[str, Tensor]) -> None:
        """Copy the trainable tensors from the `state_dict` of a checkpoint."""
        for key, tensor in self._trainable().items():
            tensor.copy_(state[key])

    def _trainable(self) -> dict[str, nn.Parameter]:
        """Trainable tensors by their key in a checkpoint."""
        return {f"model.{name}": tensor for name, tensor in self.model.trainable().items()}


def build_model(plan: Plan) -> tuple[Method, BackboneIdentity]:
    """Load the backbone, and put the method into it.

    Raises:
        ConfigError: The checkpoint cannot be loaded, or does not fit the configuration.
    """
    config = plan.config
    dtype = getattr(torch, config.model.dtype)
    backbone = load_model(plan.backbone, dtype=dtype, attention=config.model.attention)
    identity = identify_backbone(config.model, backbone, plan.backbone.tokenizer)
    method = build_method(config, backbone, plan.word_ids)
    method.read_train(plan.encoder, plan.splits.sets["train"], config.data.seed)
    return method, identity


def build_module(plan: Plan, model: Method) -> MethodModule:
    """The Lightning module around the model."""
    config, task = plan.config, plan.task
    assert config.loss is not None
    return MethodModule(
        model,
        LabelScorer(plan.backbone.family.kind, plan.word_ids, task.value_range),
        evaluator=Evaluator(task, plan.splits.sets),
        loss=config.loss,
        optim=config.optim,
    )


def build_optimizer(parameters: Mapping[str, nn.Parameter], optim: OptimConfig) -> AdamW:
    """AdamW with decay on weight matrices only: not on biases, norms or free prompt vectors."""
    groups: list[dict[str, Any]] = [
        {"params": [], "weight_decay": optim.weight_decay},
        {"params": [], "weight_decay": 0.0},
    ]
    for name, parameter in parameters.items():
        is_matrix = name.endswith(".weight") and parameter.dim() > 1
        groups[0 if is_matrix else 1]["params"].append(parameter)
    return AdamW([g for g in groups if g["params"]], lr=optim.lr, eps=optim.eps)


def build_schedule(optimizer: AdamW, optim: OptimConfig, steps: int) -> LambdaLR:
    """Linear warm-up over `warmup_ratio` of the steps, then linear decay to 0 or constant."""
    return get_scheduler(
        "linear" if optim.schedule == "linear" else "constant_with_warmup",
        optimizer,
        num_warmup_steps=int(steps * optim.warmup_ratio),
        num_training_steps=steps,
    )
