"""Several ranks: DDP with two on the CPU; FSDP is only built."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.strategies import FSDPStrategy
from transformers.models.bert.modeling_bert import BertLayer
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from lpt.errors import ConfigError
from lpt.experiment import run
from lpt.methods.late_prompt import LatePrompt
from lpt.models.backbone import find_backbone, load_model
from lpt.models.generators import build_generator
from lpt.models.split import SplitModel
from lpt.training.trainer import build_strategy
from tests.conftest import MakeConfig, toy_overrides
from tests.support.configs import configured
from tests.support.outcomes import assert_alike, curve
from tests.support.processes import finished
from tests.support.task_rows import copa_rows, write_jsonl
from tests.support.trained import table


def test_fsdp_shards_by_layer(checkpoints: dict[str, Path]) -> None:
    for kind, layer in (("masked", BertLayer), ("causal", LlamaDecoderLayer)):
        path = str(checkpoints[kind])
        found = find_backbone(name="x", path=path, revision=None, package=None, gguf_file=None)
        split = SplitModel(load_model(found, dtype=torch.float32), 2)
        model = LatePrompt(split, build_generator("npg", hidden_size=32, length=2, bottleneck=3))
        strategy = build_strategy("fsdp", model)
        assert isinstance(strategy, FSDPStrategy)
        wraps = strategy.kwargs["auto_wrap_policy"]
        wrapped = {type(m) for m in model.modules() if wraps(m, recurse=False, nonwrapped_numel=0)}
        assert wrapped == {layer}
        ignored = {id(parameter) for parameter in strategy.kwargs["ignored_states"]}
        assert ignored == {id(parameter) for parameter in model.trainable().values()}


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_dry_run_for_several_devices(
    toy: MakeConfig, capsys: pytest.CaptureFixture[str], strategy: str
) -> None:
    """On a machine that has none of them."""
    given = (f"strategy={strategy}", "strategy.num_nodes=2", "strategy.devices=4")
    config = toy("causal", *given, "strategy.accelerator=gpu", "dry_run=true")
    assert run(config) is None
    assert "All checks passed" in capsys.readouterr().out
    config.strategy.devices = 13
    with pytest.raises(ConfigError, match=r"strategy\.devices: .* for 24 dev examples"):
        run(config)


def test_each_rank_has_its_own_dropout(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """Also after a resume. All rows are the same, so that ranks draw equally many numbers."""
    (tmp_path / "data").mkdir()
    for split in ("train", "dev", "test"):
        (tmp_path / "data" / f"{split}.tsv").write_text("1\tthe film good\n" * 64)
    rates = ("prompt.dropout=0.5", "model.dropout=above", "optim.lr=1e-12", "cache=off")
    length = ("data.batch_size=4", "trainer.eval_every_steps=1", f"run_dir={tmp_path / 'run'}")
    two = ("strategy=ddp", "strategy.devices=2", "resume=auto")
    data = tmp_path / "data"
    given = toy_overrides(checkpoints, data, "masked", *rates, *length, *two)
    last, found = tmp_path / "run" / "checkpoints" / "last.ckpt", []
    for start in range(2):
        printed = finished(given, tmp_path / "run.txt")
        assert ("at step 1." in printed) == (start > 0)  # the best one is the first
        ranks = torch.load(last, weights_only=True)["callbacks"]["RngState"]["ranks"]
        states = [rank["torch"].tolist() for rank in ranks]
        assert states[0] != states[1]
        found.append((states, curve(tmp_path / "run", "train/loss")))
        assert len(found[-1][1]) == 4
        for file in (tmp_path / "run" / "metrics.json", last):
            file.unlink()
    assert found[0] == found[1]


@pytest.fixture
def compare(checkpoints: dict[str, Path], toy_data: Path, tmp_path: Path) -> Callable[..., None]:
    """Compare a short run without dropout on one rank with one on two."""

    def run_both(model: str, *more: str) -> None:
        def settings(name: str) -> list[str]:
            plain = ("trainer.max_steps=12", "model.dropout=none", "prompt.dropout=0")
            folders = (f"run_dir={tmp_path / name}", f"cache.dir={tmp_path / name}-cache")
            given = toy_overrides(checkpoints, toy_data, model, *plain, *folders, *more)
            late = not any(text.startswith("method=") for text in more)
            return [text for text in given if late or not text.startswith("prompt.")]

        run(configured(*settings("one")))
        two = ("strategy=ddp", "strategy.devices=2", "data.batch_size=8")
        finished([*settings("two"), *two], tmp_path / "two.txt")
        assert_alike(tmp_path / "two", tmp_path / "one")

    return run_both


@pytest.mark.parametrize(
    ("model", "more", "train", "cached"),
    [
        ("masked", ("data.bucketing=true",), 65, 3),  # the last batch of a pass has one example
        pytest.param(
            *("masked", ("data.bucketing=false", "cache.max_gb=1e-6"), 71, 0),  # it has seven
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *("causal", ("trainer.accumulate_grad_batches=2",), 77, 3), marks=pytest.mark.slow
        ),
        pytest.param(
            "masked",
            ("method=adalora", "trainer.accumulate_grad_batches=2"),
            *(65, 0),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_two_ranks_compute_what_one_computes(
    compare: Callable[..., None],
    tmp_path: Path,
    model: str,
    more: tuple[str, ...],
    train: int,
    cached: int,
) -> None:
    """Every example is scored once, and the global batches are the same, also if uneven."""
    limits = (f"data.limit_train={train}", "data.limit_test=23")
    compare(model, *more, *limits)
    one, two = (
        [(row["index"], row["prediction"]) for row in table(tmp_path / ranks / "predictions.tsv")]
        for ranks in ("one", "two")
    )
    assert len({index for index, _ in two}) == len(two) == 23
    assert one == two
    metrics = json.loads((tmp_path / "two" / "metrics.json").read_text())
    assert len(metrics["cache"]["sets"]) == cached


def number_rows(count: int, start: int) -> list[dict[str, Any]]:
    """No two texts of a set are the same: rounding errors would decide on their order."""
    return [{"text": "good " * (1 + i % 23), "label": i % 6} for i in range(start, start + count)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "rows", "more"),
    [
        ("copa", copa_rows, ()),
        ("stsb", number_rows, ("task.labels=['0','5']", "task.aliases={s1:[text],s2:[text]}")),
    ],
)
def test_multiple_choice_and_regression_with_two_ranks(
    compare: Callable[..., None],
    tmp_path: Path,
    task: str,
    rows: Callable[[int, int], list[dict[str, Any]]],
    more: tuple[str, ...],
) -> None:
    """The candidates of a group may be in different ranks."""
    for start, (split, count) in enumerate((("train", 27), ("dev", 7), ("test", 9))):
        write_jsonl(tmp_path / "data" / f"{split}.jsonl", rows(count, 100 * start))
    label_words = "task.label_words=[great,terrible]"
    data = (f"data.path={tmp_path / 'data'}", "data.eval_batch_size=3")
    compare("masked", f"task={task}", "task.template=null", label_words, *data, *more)
