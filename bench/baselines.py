"""Baselines on the same batches, with the head at the mask only: full fine-tuning and LoRA."""

from __future__ import annotations

from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import PreTrainedModel

from lpt.models.families import get_family
from lpt.models.inputs import Batch
from lpt.models.views import head_view


class MaskModel(nn.Module):
    """A masked language model that is fine-tuned in full or with LoRA.

    Args:
        model: The language model.
        lora: Train only LoRA weights of rank 8 on queries and values, PEFT's default targets.
    """

    def __init__(self, model: PreTrainedModel, *, lora: bool) -> None:
        super().__init__()
        self.head = head_view(model, get_family(model.config.model_type))
        self.base: nn.Module = model.base_model
        model.requires_grad_(not lora)
        if lora:
            lora_config = LoraConfig(r=8, lora_alpha=16, target_modules=["query", "value"])
            self.base = get_peft_model(model.base_model, lora_config)

    def forward(self, batch: Batch) -> Tensor:
        """Cross-entropy of the label word at the mask, over the vocabulary."""
        out = self.base(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
        final = out.last_hidden_state[batch.logit_rows, batch.logit_positions]
        logits = self.head(inputs_embeds=final[None]).logits[0]
        return nn.functional.cross_entropy(logits.float(), batch.targets)
