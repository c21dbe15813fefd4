"""The baseline, on the same batches with the head at the mask only: LoRA as PEFT has it."""

from __future__ import annotations

from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import PreTrainedModel

from lpt.models.families import get_family
from lpt.models.inputs import Batch
from lpt.models.views import head_view


class PeftLora(nn.Module):
    """A masked language model with LoRA on queries and values, PEFT's default targets.

    Args:
        model: The language model.
        rank: r.
    """

    def __init__(self, model: PreTrainedModel, rank: int = 8) -> None:
        super().__init__()
        self.head = head_view(model, get_family(model.config.model_type))
        model.requires_grad_(False)
        config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=["query", "value"])
        self.base = get_peft_model(model.base_model, config)

    def forward(self, batch: Batch) -> Tensor:
        """Cross-entropy of the label word at the mask, over the vocabulary."""
        out = self.base(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
        final = out.last_hidden_state[batch.logit_rows, batch.logit_positions]
        logits = self.head(inputs_embeds=final[None]).logits[0]
        return nn.functional.cross_entropy(logits.float(), batch.targets)
