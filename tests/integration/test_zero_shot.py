"""Zero-shot scores are computed once for all runs on the same model, texts and label words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from lightning import Callback
from lightning.pytorch.callbacks import LambdaCallback

from lpt.caching.store import HiddenCache
from lpt.experiment import run
from lpt.runs.record import RunRecord
from tests.conftest import MakeConfig

Run = Callable[..., tuple[RunRecord, int]]


@pytest.fixture
def counted(toy: MakeConfig, tmp_path: Path, callbacks: list[Callback]) -> Run:
    """A run, and how many sets it evaluated before the training."""
    steps: list[int] = []
    note = LambdaCallback(on_test_start=lambda trainer, _: steps.append(trainer.global_step))
    callbacks.append(note)

    def start(model: str, *overrides: str) -> tuple[RunRecord, int]:
        steps.clear()
        record = run(toy(model, f"cache.dir={tmp_path / 'cache'}", "overwrite=true", *overrides))
        assert record is not None
        return record, steps.count(0)

    return start


@pytest.mark.parametrize("model", ["masked", "causal"])
def test_the_next_run_does_not_evaluate_again(counted: Run, model: str) -> None:
    first, evaluated = counted(model)
    assert evaluated == 2  # dev and test
    again, evaluated = counted(model, "seed=21", "method=head", "prompt.layer=null")
    assert evaluated == 0
    assert again.zero_shot == first.zero_shot
    repeated, _ = counted(model)
    assert (repeated.test, repeated.dev_history) == (first.test, first.dev_history)
    off, evaluated = counted(model, "cache=off")
    assert evaluated == 2
    assert off.zero_shot == first.zero_shot


def test_other_rows_of_the_same_set_are_told_apart(counted: Run) -> None:
    """Scores belong to the texts in their order, whatever their row ids."""
    sampled = ("data.limit_dev=12", "data.seed=21", "data.limit_test=9")
    kept, _ = counted("masked", *sampled)
    again, evaluated = counted("masked", *sampled)
    assert evaluated == 0
    off, _ = counted("masked", *sampled, "cache=off")
    assert kept.zero_shot == again.zero_shot == off.zero_shot


@pytest.mark.parametrize(
    "override",
    [
        'task.template="{text} This is <mask> ."',
        "task.label_words=[food,film]",
        "data.max_length=9",
    ],
)
def test_what_they_depend_on(counted: Run, override: str) -> None:
    counted("masked")
    assert counted("masked", override)[1] == 2


@pytest.mark.parametrize("damage", ["", "{", "1", "swap"])
def test_a_damaged_file_is_replaced(counted: Run, tmp_path: Path, damage: str) -> None:
    first, _ = counted("masked")
    files = sorted((tmp_path / "cache").glob("scores-*.json"))
    assert len(files) == 2
    contents = [file.read_bytes() for file in files]
    for file, other in zip(files, reversed(contents), strict=True):
        digits = file.read_text().replace("0.", "1.", 1)
        file.write_bytes({"1": digits.encode(), "swap": other}.get(damage, damage.encode()))
    again, evaluated = counted("masked")
    assert evaluated == 2
    assert again.zero_shot == first.zero_shot
    assert [file.read_bytes() for file in files] == contents
    HiddenCache(tmp_path / "cache", max_bytes=0).clear()
    assert not list((tmp_path / "cache").glob("scores-*.json"))


def test_a_folder_that_cannot_be_written(counted: Run, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    record, evaluated = counted("masked")
    assert evaluated == 2
    assert record.zero_shot["test"]
