"""What the figures of a report show, read from the text in them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lpt.errors import Problems
from lpt.report.against import against
from lpt.report.curves import learning_curves
from lpt.report.drawing import Picture, look
from lpt.report.figures import draw_all
from lpt.report.folders import find
from lpt.report.runs import read
from lpt.report.study import Study, arrange
from tests.support.runs import metrics, write_job, write_run


def study_of(folder: Path) -> Study:
    problems = Problems()
    material = read(find([folder], problems), problems)
    problems.raise_if_any()
    return arrange(material)


def texts(picture: Picture) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", picture.svg)


def score(folder: Path, key: str) -> list[str]:
    """The texts of the score's figure against a key, which is drawn first."""
    with look():
        return texts(next(against(study_of(folder), key, folder)))


def test_few_lines_are_named_and_baselines_are_there(tmp_path: Path) -> None:
    for kind in ("npg", "static"):
        for layer in (2, 4):
            for seed in (13, 21):
                content = metrics(prompt__kind=kind, prompt__layer=layer, seed=seed, seconds=400)
                write_run(tmp_path / f"{kind}{layer}{seed}", content)
    galleries = draw_all(study_of(tmp_path), tmp_path)
    figures = {p.name: texts(p) for gallery in galleries for p in gallery.pictures}
    assert list(figures) == [
        *(f"{what}-prompt.layer-sst2" for what in ("score", "seconds", "memory")),
        "score-prompt.kind-sst2",
        "curves-sst2",
    ]
    named = {"npg", "static", "dev accuracy", "zero-shot", "majority class"}
    assert named <= set(figures["score-prompt.layer-sst2"])
    assert "training time [min]" in figures["seconds-prompt.layer-sst2"]
    assert {"npg, layer 2", "static, layer 4"} <= set(figures["curves-sst2"])
    assert all((tmp_path / f"{name}.png").stat().st_size > 5000 for name in figures)


def test_of_many_curves_the_best_and_the_ends_stand_out(tmp_path: Path) -> None:
    for layer in range(2, 10):
        content = metrics(dev=0.9 if layer == 4 else 0.8, prompt__layer=layer)
        write_run(tmp_path / str(layer), content)
    with look():
        (picture,) = learning_curves(study_of(tmp_path), tmp_path)
    assert [text for text in texts(picture) if not re.fullmatch(r"[\d.]+", text)] == [
        *("optimizer steps", "dev accuracy"),
        *("layer 4", "layer 2", "layer 9", "other settings"),
    ]


def test_rates_are_drawn_on_a_logarithmic_axis(tmp_path: Path) -> None:
    for lr in (0.0001, 0.001, 0.01):
        write_run(tmp_path / str(lr), metrics(optim__lr=lr))
    assert score(tmp_path, "optim.lr")[:3] == ["0.0001", "0.001", "0.01"]


def test_random_search_is_drawn_as_points(tmp_path: Path) -> None:
    for trial in range(8):
        content = metrics(prompt__layer=2 + trial % 3, optim__lr=0.001 + trial / 7000)
        write_run(tmp_path / str(trial), content)
    shown = score(tmp_path, "prompt.layer")
    assert "each setting" in shown
    assert "dev accuracy" not in shown


def test_of_many_lines_the_one_of_the_best_stands_out(tmp_path: Path) -> None:
    for length in range(1, 9):
        for layer in (2, 4):
            content = metrics(dev=0.7 + length / 100, prompt__layer=layer, prompt__length=length)
            write_run(tmp_path / f"{length}-{layer}", content)
    shown = score(tmp_path, "prompt.layer")
    assert {"length 8", "others"} <= set(shown)
    assert "length 7" not in shown


@pytest.mark.parametrize("state", ["running", "finished"])
def test_jobs_without_a_result_are_never_counted_as_finished(tmp_path: Path, state: str) -> None:
    write_run(tmp_path / "a", metrics())
    write_job(tmp_path / "b", state=state)
    problems = Problems()
    material = read(find([tmp_path], problems), problems)
    (job,) = material.unfinished
    assert job.state == {"running": "running", "finished": "lost"}[state]
