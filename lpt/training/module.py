"""The Lightning module: loss, scores, what is optimized, what a checkpoint holds."""

from __future__ import annotations

import math
from typing import Any

import torch
from lightning import LightningModule
from lightning.pytorch.strategies import FSDPStrategy
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from lpt.errors import RunError
from lpt.methods.late_prompt import Batch, LabelScorer, LatePrompt
from lpt.training.distributed import world_size
from lpt.training.evaluation import Evaluator
from lpt.training.metrics import EvalOutput, PredictionStore
from lpt.training.optim import build_optimizer, build_schedule


class LatePromptModule(LightningModule):
    """Trains a `LatePrompt`; only its trainable part is saved.

    Args:
        model: The model.
        scorer: Scores labels and gives the loss.
        evaluator: EvalOutput and scores the sets.
        loss: `vocabulary` or `label_words`.
        lr: Peak learning rate.
        weight_decay: Decoupled weight decay.
        warmup_ratio: Share of the steps for warm-up.
        schedule: `linear` or `constant`.
        eps: AdamW's epsilon.
    """

    def __init__(
        self,
        model: LatePrompt,
        scorer: LabelScorer,
        *,
        evaluator: Evaluator,
        loss: str,
        lr: float,
        weight_decay: float,
        warmup_ratio: float,
        schedule: str,
        eps: float,
    ) -> None:
        super().__init__()
        self.model = model
        self.scorer = scorer
        self.evaluator = evaluator
        self.loss_over = loss
        self.lr = lr
        self.weight_decay = weight_decay
        self.warmup_ratio = warmup_ratio
        self.schedule = schedule
        self.eps = eps
        self.prompted = True
        self.store = PredictionStore()
        self.answers: EvalOutput | None = None
        self.scores: dict[str, float] | None = None
        self.grad_norm: Tensor | None = None
        self.strict_loading = False  # checkpoints lack the frozen weights

    def on_fit_start(self) -> None:
        """Lightning keeps each module's mode, and transformers loads in eval mode."""
        self.model.train()

    def training_step(self, batch: Batch, _: int) -> dict[str, Tensor]:
        """`loss` of one batch, weighted by this rank's share of the examples.

        The mean of the ranks, which their gradients become, is so that of all examples of the
        global batch, also where the last one of a pass does not divide. What is logged is of the
        global batch, too, and is given as `mean`.
        """
        words_only = self.loss_over == "label_words" and self.scorer.words_only
        logits = self.model(batch, words_only=words_only)
        loss = self.scorer.loss(logits, batch, self.loss_over)
        size, padding = len(batch.labels), 1.0 - batch.attention_mask.float().mean()
        mean = loss.detach()
        if (ranks := world_size()) > 1:
            ours = torch.stack([torch.ones_like(padding), mean.float(), padding]) * size
            examples, *sums = self.trainer.strategy.reduce(ours, reduce_op="sum")
            mean, padding = (of_all / examples for of_all in sums)
            loss = loss * (size * ranks / examples)
        self.log("train/loss", mean, prog_bar=True, batch_size=size)
        self.log("train/padding", padding, batch_size=size)
        return {"loss": loss, "mean": mean}

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the norm of the prompt's gradient; under FSDP, average it over the ranks first.

        The norm before that is logged, and kept as `grad_norm` for whoever watches.
        """
        trainable = list(self.model.trainable().values())
        if isinstance(self.trainer.strategy, FSDPStrategy):
            for parameter in trainable:
                if parameter.grad is not None:
                    parameter.grad = self.trainer.strategy.reduce(parameter.grad, reduce_op="mean")
        largest = gradient_clip_val if gradient_clip_val is not None else math.inf
        self.grad_norm = clip_grad_norm_(trainable, largest)
        self.log("train/grad_norm", self.grad_norm)

    def validation_step(self, batch: Batch, _: int) -> None:
        """Score all labels of one batch."""
        logits = self.model(batch, prompted=self.prompted, words_only=self.scorer.words_only)
        scores = self.scorer(logits, batch)
        self.store.update(batch.row_ids, scores)

    def on_validation_epoch_end(self) -> None:
        """Gather the predictions and log the metrics as `dev/NAME`."""
        self._finish("dev")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Score all labels of one batch."""
        self.validation_step(batch, batch_idx)

    def on_test_epoch_end(self) -> None:
        """Gather the predictions and log the metrics as `SET/NAME`."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        self._finish(data.test_set)

    def _finish(self, split: str) -> None:
        self.answers = self.evaluator.answers(split, self.store.gather())
        self.scores = self.evaluator.scores(split, self.answers)
        self.store.reset()
        if self.scores is not None and self.prompted:
            logged = {f"{split}/{name}": value for name, value in self.scores.items()}
            self.log_dict(logged, prog_bar=True, rank_zero_only=False, sync_dist=False)

    def configure_optimizers(self) -> Any:
        """AdamW and its per-step schedule over all steps of the run."""
        optimizer = build_optimizer(
            self.model.trainable(), lr=self.lr, weight_decay=self.weight_decay, eps=self.eps
        )
        schedule = build_schedule(
            optimizer,
            steps=int(self.trainer.estimated_stepping_batches),
            warmup_ratio=self.warmup_ratio,
            schedule=self.schedule,
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the trainable part only: megabytes, not gigabytes."""
        wanted = self._trainable_keys()
        checkpoint["state_dict"] = {
            key: value for key, value in checkpoint["state_dict"].items() if key in wanted
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another prompt: loading is not strict, for the frozen weights.

        Raises:
            RunError: Its tensors are not those that train here.
        """
        ours = {f"model.{name}": of for name, of in self.model.trainable().items()}
        saved = checkpoint["state_dict"]
        wrong = [f"lacks {name}" for name in sorted(ours.keys() - saved.keys())]
        wrong += [
            f"has {name}, which does not train" for name in sorted(saved.keys() - ours.keys())
        ]
        for name in sorted(ours.keys() & saved.keys()):
            here, there = (tuple(of.shape) for of in (ours[name], saved[name]))
            if here != there:
                wrong.append(f"has {name} of shape {there}, not {here}")
        if wrong:
            file = self.trainer.ckpt_path
            raise RunError(f"{file} is of another run: it {'; '.join(wrong)}. Nothing was changed.")

    def _trainable_keys(self) -> set[str]:
        return {f"model.{name}" for name in self.model.trainable()}
