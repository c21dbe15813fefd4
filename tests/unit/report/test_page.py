"""The files of a report: complete, escaped, self-contained, never half replaced; its figures."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pandas as pd
import pytest

from lpt.cli.report import main
from lpt.report import write_report
from lpt.report.figures import Picture, draw
from lpt.report.formatting import mean_and_sd, number, p_value
from tests.support.runs import metrics, write_job, write_run, write_sweep
from tests.unit.report.studies import study_of

HOSTILE = '<script>alert("1")</script>_50%|a&b $x$ #{~^}'
LONG = "[x] In this review of the film, {text} All in all it was <mask>."
NO_SCORES = {"dev": None, "test": None}


def attributes(page: str, name: str) -> list[str]:
    """The values of an attribute, wherever it occurs."""
    return [unescape(value) for value in re.findall(rf'\s{name}="([^"]*)"', page)]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Layers and templates on two tasks, one with a hostile name, and a job that failed."""
    folder = tmp_path_factory.mktemp("runs") / "a sweep"
    write_sweep(folder)
    settings = [(LONG, 2), (LONG, 4), ("<b>{text}</b>_<mask>", 4)]
    for task, place, seed in itertools.product(("sst2", HOSTILE), range(3), (13, 21)):
        template, layer = settings[place]
        score = 0.6 + layer / 50 + seed / 1000
        scores = {"dev": score, "test": score, "majority": NO_SCORES}
        keys = {"seed": seed, "prompt__layer": layer, "task__template": template}
        content = metrics(task=task, **scores, **keys, command=[f"`x`=</code>{seed}"])
        write_run(folder / f"{task[:4]}{place}-{seed}", content)
    write_job(folder / "lost", state="failed", reason="out | of <b>memory</b>")
    return write_report([folder], folder / "report").parent


@pytest.fixture
def page(report: Path) -> str:
    return (report / "index.html").read_text()


def test_the_page_is_self_contained_and_its_links_lead_somewhere(page: str, report: Path) -> None:
    assert re.findall(r"<script|<link|<[^>]*\son\w+=", page) == []
    # For each of two tasks: score, time and memory by layer; a dot plot; learning curves.
    images = attributes(page, "src")
    assert len(images) == len(attributes(page, "alt")) == 10
    assert [len(list(report.glob(f"*.{kind}"))) for kind in ("png", "pdf", "svg")] == [10] * 3
    figure = next(report.glob("*.pdf")).read_bytes()
    assert b"/FontFile2" in figure  # embedded, and no bitmaps of letters
    assert b"/Type3" not in figure
    assert all(source.startswith("data:image/svg+xml;base64,") for source in images)
    links = attributes(page, "href")
    assert len(links) > 12
    assert [link for link in links if not (report / unquote(link)).exists()] == []


def test_names_are_shown_and_not_interpreted(page: str) -> None:
    shown = [HOSTILE, "out | of <b>memory</b>", f"template #1: {LONG}", "<b>{text}</b>_<mask>"]
    shown += ["python sweep.py sweep=layers task=sst2", "12 finished, 1 unfinished"]
    shown += ["python -m lpt.cli.train '`x`=</code>21'"]
    text = " ".join(unescape(re.sub("<[^>]*>", "", page)).split())
    assert [name for name in shown if name not in text] == []


def test_latex_tables_are_balanced(report: Path) -> None:
    files = list(report.glob("*.tex"))
    assert len(files) == 7
    for file in files:
        lines = [line for line in file.read_text().splitlines() if not line.startswith("%")]
        text = "\n".join(lines)
        assert rf"\label{{tab:{file.stem}}}" in text
        text = text.replace(file.stem, "")
        bare = re.sub(r"\\[\\{}&%$#_]|\$-\$|\$\^\\dagger\$|\$_\{\\pm[\d.,]+\}\$", "", text)
        assert bare.count("{") == bare.count("}")
        assert not re.search(r"[$_^~#]|^\[", bare, flags=re.MULTILINE)
        assert [lines.count(rf"\{rule}rule") for rule in ("top", "mid", "bottom")] == [1, 1, 1]
        (columns,) = re.findall(r"\\begin\{tabular\}\{([lr]+)\}", text)
        rows = [line for line in lines if line.endswith(r"\\")]
        assert {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows} == {len(columns)}


def test_runs_are_there_as_csv(report: Path) -> None:
    table = pd.read_csv(report / "runs.csv", index_col="folder")
    assert len(table) == 12
    row = table.loc["../sst21-21", ["test/accuracy", "prompt.layer", "data.seed", "task.template"]]
    assert row.tolist() == [0.701, 4, 21, LONG]


def test_the_layer_curve_has_a_line_for_each_method_with_several_layers(tmp_path: Path) -> None:
    methods = ("full", "lora", "dora", "vera", "ia3", "bitfit", "adapter")
    runs: list[dict[str, Any]] = [{"prompt__layer": layer} for layer in (2, 4)]
    for name, layer in itertools.product(methods, (1, 4)):
        if (name, layer) != ("full", 4):
            method = {"name": name, "layer": layer, "lr": 1e-3}
            runs.append({"prompt": None, "method": method, "optim__lr": 1e-3})
    pictures = draw(study_of(tmp_path, *runs))
    assert set(pictures) == {"By first tuned layer", "By method", "Learning curves"}
    curve = pictures["By first tuned layer"][0].figure
    labels = [text.get_text() for text in curve.legends[0].get_texts()]
    assert set(labels) - {"zero-shot", "majority class"} == {"npg", *methods} - {"full"}


def test_an_old_report_is_replaced(tmp_path: Path) -> None:
    run_dir, out = write_run(tmp_path / "a", metrics()), tmp_path / "report"
    write_report([tmp_path], out)
    page = write_report([tmp_path, run_dir], out, title="A & B").read_text()
    assert "<h1>A &amp; B</h1>" in page
    assert "1 finished" in page


def test_numbers() -> None:
    assert [number(x) for x in (-0.25, -0.0001, float("nan"))] == ["−0.250", "0.000", "–"]
    assert (number(0.1, sign="+"), number(1234.56, "train_seconds")) == ("+0.100", "1,234.6")
    assert mean_and_sd({"mean": 0.5, "std": 0.0}, "test/f1") == "0.500 ± 0.000"
    assert [p_value(p) for p in (0.0001, 0.25)] == ["< 0.001", "0.250"]


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert "no finished run" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path), str(tmp_path)])


def test_missing_libraries_are_named() -> None:
    missing = (
        "import sys; sys.modules['matplotlib'] = None; "
        "from lpt.cli.report import main; assert 'pandas' not in sys.modules; sys.exit(main(['.']))"
    )
    run = subprocess.run([sys.executable, "-c", missing], capture_output=True, check=False)
    assert run.returncode == 2
    assert b"pip install '.[report]'" in run.stderr


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
    costs = [f"{cost}-prompt.layer-sst2" for cost in ("train_seconds", "peak_memory_mb")]
    assert list(shown) == [SCORE, *costs, "test-prompt.kind-sst2", "curves-sst2"]
    assert legend(shown[SCORE]) == {"npg", "static", "zero-shot", "majority class"}
    assert shown[SCORE].figure.axes[0].get_xlabel() == "insertion layer"
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


def test_score_against_cost(tmp_path: Path) -> None:
    """Only costs that differ are drawn; times over a decade on a logarithmic axis."""
    runs = [
        {"prompt__kind": kind, "seconds": seconds, "seed": seed}
        for kind, seconds in (("npg", 10.0), ("static", 200.0))
        for seed in (1, 2)
    ]
    shown = figures(tmp_path, *runs)
    assert [name for name in shown if name.startswith("cost-")] == ["cost-train_seconds-sst2"]
    picture = shown["cost-train_seconds-sst2"]
    (axes,) = picture.figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("training time [s]", "test accuracy")
    assert axes.get_xscale() == "log"
    assert {"npg", "static"} < legend(picture)
