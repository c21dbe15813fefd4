"""Runs of regression and multiple-choice tasks, and of every task that ships."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from lpt.config.schema import Config
from lpt.experiment import run
from lpt.models.scoring import LabelScorer
from tests.conftest import MakeConfig
from tests.support.configs import CONF, configured
from tests.support.late_prompts import make_batch
from tests.support.shared import DATA_DIR
from tests.support.task_rows import COLUMNS, EXAMPLES, NAMES, ROWS, write_jsonl
from tests.support.tiny import save_tiny
from tests.support.tokenizers import causal, wordpiece
from tests.support.trained import table

WORDS_FOR = ("great", "terrible", "bad", "good", "film", "food")  # one token to either tokenizer


@pytest.fixture(scope="module")
def roomy(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Models as in `checkpoints`, with more positions for the longest templates."""
    folder = tmp_path_factory.mktemp("roomy")
    save_tiny(folder / "masked", "bert", wordpiece(), max_position_embeddings=256)
    save_tiny(folder / "causal", "llama", causal(), max_position_embeddings=256)
    return {kind: folder / kind for kind in ("masked", "causal")}


@pytest.fixture
def official(roomy: dict[str, Path], tmp_path: Path) -> MakeConfig:
    """A short run of a task that ships, with label words that the tiny models know."""

    def make(model: str, task: str, folder: Path, *overrides: str) -> Config:
        labels = configured(f"task={task}").task.labels
        return configured(
            "model=local",
            f"model.path={roomy[model]}",
            f"task={task}",
            f"task.label_words=[{','.join(WORDS_FOR[: len(labels)])}]",
            f"data.path={folder}",
            "prompt.layer=3",
            "data.batch_size=4",
            "data.max_length=250",
            "trainer.max_steps=2",
            "trainer.eval_every_steps=1",
            "strategy.accelerator=cpu",
            f"run_dir={tmp_path / 'run'}",
            *overrides,
        )

    return make


@pytest.mark.parametrize(
    ("task", "model", "method"),
    [
        *((task, model, "late_prompt") for task in ROWS for model in ("masked", "causal")),
        *((task, "masked", "head") for task in ROWS),
        *((task, "causal", "head") for task in ("stsb", "copa")),
        ("copa", "causal", "in_context"),
    ],
)
def test_regression_and_groups(
    official: MakeConfig, tmp_path: Path, task: str, model: str, method: str
) -> None:
    each = EXAMPLES[task]
    settings = ["data.limit_train=8", "data.limit_test=4", f"method={method}"]
    if method != "late_prompt":
        settings.append("prompt.layer=null")
    if task == "stsb":
        settings.append("task.aliases={s1:[text],s2:[text]}")
    for split, count, start in (("train", 10, 0), ("dev", 6, 10), ("test", 6, 16)):
        write_jsonl(tmp_path / "data" / f"{split}.jsonl", ROWS[task](count, start))
    metrics = run(official(model, task, tmp_path / "data", *settings))
    assert metrics is not None
    assert metrics.split.sizes["dev"] == 6 * each
    over_labels = task == "stsb" or method == "head"
    assert metrics.config["loss"] == ("label_words" if over_labels else "vocabulary")
    assert metrics.metrics == list(NAMES[task])
    assert metrics.selection.metric == NAMES[task][0]
    for scores in (
        *(metrics.dev, metrics.test),
        *(kind[name] for kind in (metrics.majority, metrics.zero_shot) for name in ("dev", "test")),
    ):
        assert set(scores) == set(NAMES[task])
        assert all(-1 <= value <= 1 for value in scores.values())
    assert metrics.extra == {}

    rows = table(tmp_path / "run" / "predictions.tsv")
    assert list(rows[0])[: len(COLUMNS[task])] == COLUMNS[task]
    assert len({row["index"] for row in rows}) == len(rows) == metrics.split.sizes["test"]
    assert len({row["id"] for row in rows}) == len(rows)
    if task == "stsb":
        assert all(0 <= float(row["prediction"]) <= 5 for row in rows)
        return
    groups = {
        group: [r for r in rows if r["group"] == group] for group in {r["group"] for r in rows}
    }
    assert len(groups) == 4  # groups are what limits count
    if task != "multirc":
        chosen = [[r["prediction"] for r in group].count("1") for group in groups.values()]
        assert set(chosen) == {1}
        right = sum(r["prediction"] == r["label"] == "1" for r in rows)
        name = "record_em" if task == "record" else "accuracy"
        assert metrics.test[name] == pytest.approx(right / 4, abs=1e-6)
    else:
        whole = sum(all(r["prediction"] == r["label"] for r in g) for g in groups.values())
        assert metrics.test["exact_match"] == pytest.approx(whole / 4, abs=1e-6)


@pytest.mark.parametrize("model", ["masked", "causal"])
def test_learns_regression(official: MakeConfig, tmp_path: Path, model: str) -> None:
    texts = {5: "a good film", 0: "a bad film", 2.5: "the day"}
    rows = [{"text": text, "label": number} for number, text in texts.items()] * 2
    for split in ("train", "dev", "test"):
        write_jsonl(tmp_path / "data" / f"{split}.jsonl", rows)
    settings = (
        *("task.aliases={s1:[text],s2:[text]}", "prompt=appg", "prompt.layer=3"),
        *("model.dropout=none", "prompt.dropout=0", "optim.lr=0.03", "data.batch_size=6"),
        *("trainer.max_steps=80", "trainer.eval_every_steps=80"),
    )
    metrics = run(official(model, "stsb", tmp_path / "data", *settings))
    assert metrics is not None
    assert metrics.test["pearson"] > 0.9
    found = [float(row["prediction"]) for row in table(tmp_path / "run" / "predictions.tsv")]
    assert found == pytest.approx([5, 0, 2.5] * 2, abs=1.0)


def test_regression_loss() -> None:
    """Soft cross-entropy; its gradient is that of the KL divergence, as in LM-BFF."""
    shares = torch.tensor([0.0, 1.0, 0.5, 0.2])
    token = torch.ones(4, 2, dtype=torch.long)
    batch = make_batch(token, token)._replace(labels=1.0 + 2.0 * shares)
    logits = torch.tensor([[2.0, -1.0], [0.0, 0.5], [3.0, 3.0], [-1.0, 1.0]], requires_grad=True)
    loss = LabelScorer("masked", [7, 8], (1.0, 3.0)).loss(logits, batch, "label_words")
    target = torch.stack([1 - shares, shares], dim=1)
    expected = -(target * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(loss, expected)
    [gradient] = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(gradient, (logits.softmax(1) - target).detach() / 4)


# Real data, where present

TASKS = sorted(
    p.stem for p in (CONF / "task").glob("*.yaml") if p.stem not in ("custom", "reviews")
)


@pytest.mark.parametrize("model", ["masked", "causal"])
@pytest.mark.parametrize("task", TASKS)
def test_every_task_trains_and_is_tested(
    official: MakeConfig, tmp_path: Path, task: str, model: str
) -> None:
    config = configured(f"task={task}").task
    needed = {str(config.files.get("test"))} if config.fixed_test else set()
    folders = [
        folder
        for name in dict.fromkeys([config.folder or task, task])
        for folder in sorted(DATA_DIR.glob(f"*/{name}"))
        if any((folder / f"train.{kind}").exists() for kind in ("tsv", "jsonl"))
        and all((folder / file).exists() for file in needed)
    ]
    if not folders:
        pytest.skip(f"no training data of {task} in {DATA_DIR}")
    for number, folder in enumerate(folders):
        run_dir, k, test = tmp_path / f"run{number}", 2 * len(config.labels), 8
        few = ("data=kshot", f"data.k={k}", "data.dev_k=6", f"data.limit_test={test}")
        metrics = run(official(model, task, folder, *few, f"run_dir={run_dir}"))
        assert metrics is not None
        names = [config.metric, *config.metrics]
        assert set(metrics.dev) == set(names)
        assert set(metrics.test) == set(config.test_metrics or names)
        assert metrics.cost.steps == 2
        sizes = metrics.split.sizes
        assert sizes["train"] >= k
        assert len(table(run_dir / "predictions.tsv")) == sizes["test"] >= test
        split = json.loads((run_dir / "split.json").read_text())
        assert {name: len(of["rows"]) for name, of in split["sets"].items()} == sizes
