"""What the figures of a report show."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from lpt.report.figures import Picture, draw
from tests.support.runs import metrics, write_run
from tests.unit.report.studies import study_of

SCORE = "test-prompt.layer-sst2"


def figures(folder: Path, *runs: dict[str, Any]) -> dict[str, Picture]:
    sections = draw(study_of(folder, *runs))
    return {picture.name: picture for group in sections.values() for picture in group}


def legend(picture: Picture) -> set[str]:
    return {text.get_text() for text in picture.figure.legends[0].get_texts()}


def test_few_lines_are_named_and_baselines_are_there(tmp_path: Path) -> None:
    grid = itertools.product(("npg", "static"), (2, 4), (1, 2))
    runs = ({"prompt__kind": kind, "prompt__layer": n, "seed": seed} for kind, n, seed in grid)
    shown = figures(tmp_path, *runs)
    costs = [f"{cost}-prompt.layer-sst2" for cost in ("train_seconds", "peak_memory_mib")]
    assert list(shown) == [SCORE, *costs, "test-prompt.kind-sst2", "curves-sst2"]
    assert legend(shown[SCORE]) == {"npg", "static", "zero-shot", "majority class"}
    assert shown[SCORE].figure.axes[0].get_xlabel() == "prompt.layer"
    assert shown[costs[0]].figure.axes[0].get_ylabel() == "training time [s]"
    ticks = shown["test-prompt.kind-sst2"].figure.axes[0].get_yticklabels()
    assert [text.get_text() for text in ticks] == ["npg", "static"]
    assert {"npg, layer 2", "static, layer 4"} <= legend(shown["curves-sst2"])


def test_of_many_lines_the_chosen_one_stands_out(tmp_path: Path) -> None:
    grid = ((length, layer) for length in range(1, 9) for layer in (2, 4))
    runs = ({"dev": 0.7 + m / 100, "prompt__length": m, "prompt__layer": at} for m, at in grid)
    shown = figures(tmp_path, *runs)
    assert legend(shown[SCORE]) == {"length 8", "others", "zero-shot", "majority class"}
    assert legend(shown["curves-sst2"]) == {"layer 2, length 8", "others"}


def test_rates_are_drawn_on_a_logarithmic_axis(tmp_path: Path) -> None:
    shown = figures(tmp_path, *({"optim__lr": lr} for lr in (0.0001, 0.001, 0.01)))
    (axes,) = shown["test-optim.lr-sst2"].figure.axes
    assert axes.get_xscale() == "log"
    assert axes.get_xticks().tolist() == [0.0001, 0.001, 0.01]


def test_curves_end_where_a_seed_ended(tmp_path: Path) -> None:
    for seed, scores in ((13, (0.5, 0.6, 0.7)), (21, (0.7, 0.8))):
        entries = [{"step": 10 * at, "accuracy": score} for at, score in enumerate(scores, 1)]
        write_run(tmp_path / str(seed), metrics(seed=seed, test=None, dev_history=entries))
    (line,) = figures(tmp_path)["curves-sst2"].figure.axes[0].lines
    assert line.get_xydata().tolist() == [pytest.approx([10, 0.6]), pytest.approx([20, 0.7])]
