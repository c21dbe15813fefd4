"""Rows per second of lpt's Predictor and of the plain transformers model, head at the mask.

    python -m bench.predict ADAPTER INPUT [--rows 2000] [--turns 3] [--device cpu]

Both start from the same rows of text in the order of the file, and take turns because machines are
noisy; on a CPU the seconds are those of the process (with OMP_NUM_THREADS=1, of one core). The
plain model takes them in batches in that order, as a short script does, and in batches of similar
length. ADAPTER is of a masked model; INPUT has the columns of its template.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import AutoModelForMaskedLM, AutoTokenizer

from bench.clock import synchronize
from lpt import Predictor
from lpt.data.tables import read_table
from lpt.data.templates import MASK
from lpt.models.families import get_family
from lpt.models.views import head_view
from lpt.runs.adapter import find_adapter_backbone

Columns = Mapping[str, Sequence[str]]


class PlainModel:
    """The language model alone: the logits of the label words at the mask.

    Args:
        source: Local folder or Hub id.
        predictor: Whose template, label words, device and type it has.
        by_length: Whether batches are of rows of similar length.
    """

    def __init__(self, source: str, predictor: Predictor, *, by_length: bool) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(source)
        dtype, self.device = predictor.model.split.dtype, predictor.device
        model = AutoModelForMaskedLM.from_pretrained(source, dtype=dtype)
        self.model = model.eval().to(self.device)
        self.head = head_view(self.model, get_family(self.model.config.model_type))
        template = predictor.encoder.template.text
        self.template = template.replace(MASK, self.tokenizer.mask_token)
        self.word_ids, self.by_length = predictor.word_ids, by_length

    @torch.no_grad()
    def score(self, columns: Columns, batch_size: int) -> Tensor:
        """Logits of the label words, (rows, labels)."""
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        texts = [self.template.format(**row) for row in rows]
        order = list(range(len(texts)))
        if self.by_length:
            lengths = list(map(len, self.tokenizer(texts)["input_ids"]))
            order.sort(key=lengths.__getitem__)
        found = []
        for start in range(0, len(order), batch_size):
            chosen = [texts[row] for row in order[start : start + batch_size]]
            inputs = self.tokenizer(chosen, padding=True, truncation=True, return_tensors="pt")
            inputs = inputs.to(self.device)
            final = self.model.base_model(**inputs).last_hidden_state
            at_mask = final[inputs["input_ids"] == self.tokenizer.mask_token_id]
            logits = self.head(inputs_embeds=at_mask[None]).logits[0]
            found.append(logits[:, self.word_ids].cpu())
        return torch.cat(found)[torch.tensor(order).argsort()]


def main() -> None:
    """Print a line for each."""
    parser = argparse.ArgumentParser(prog="python -m bench.predict", description=__doc__)
    parser.add_argument("adapter")
    parser.add_argument("input", type=Path)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--device", default="cpu")
    chosen = parser.parse_args()
    predictor = Predictor(chosen.adapter, chosen.device)
    template, table = predictor.encoder.template, read_table(chosen.input)
    columns = {n: [c or "" for c in table.columns[n][: chosen.rows]] for n in template.columns}
    source = find_adapter_backbone(chosen.adapter).source
    plain = [PlainModel(source, predictor, by_length=by_length) for by_length in (False, True)]
    methods: dict[str, Callable[[Columns, int], Tensor]] = {
        "transformers, in the order of the file": plain[0].score,
        "transformers, similar lengths": plain[1].score,
        "lpt": predictor.score,
    }
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    first = {name: texts[: 4 * chosen.batch_size] for name, texts in columns.items()}
    for method in methods.values():
        method(first, chosen.batch_size)
    clock = time.process_time if chosen.device == "cpu" else time.perf_counter
    for _ in tqdm(range(chosen.turns)):
        for name, method in methods.items():
            started = clock()
            method(columns, chosen.batch_size)
            synchronize(chosen.device)
            seconds[name].append(clock() - started)
    count = len(next(iter(columns.values())))
    print(f"{count:,} rows, batches of {chosen.batch_size}, median of {chosen.turns} turns")
    slowest = statistics.median(next(iter(seconds.values())))
    for name, times in seconds.items():
        median = statistics.median(times)
        print(f"{name:40} {count / median:8.1f} rows/s {slowest / median:6.2f} x")


if __name__ == "__main__":
    main()
