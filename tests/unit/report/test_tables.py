"""Tables for papers: what they hold, and that LaTeX sets them without an overfull box."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lpt.cli.report import main
from lpt.report import write_report
from lpt.report.latex import to_latex
from lpt.report.tables import Table, all_tables, comparisons
from tests.support.analyzed import write_predicted
from tests.support.runs import metrics, write_run
from tests.unit.report.studies import SEEDS, study_of

# By layer: dev, test. Layer 3 is chosen on dev, layer 4 best on test.
SCORES = {2: (0.7, 0.71), 3: (0.82, 0.76), 4: (0.79, 0.81)}


def runs(**more: Any) -> list[dict[str, Any]]:
    return [
        {"prompt__layer": n, "dev": dev, "test": test + i / 1000, "seed": seed, **more}
        for n, (dev, test) in SCORES.items()
        for i, seed in enumerate(SEEDS)
    ]


def rows(table: Table) -> list[list[str]]:
    return table.frame.to_numpy().tolist()


def test_the_best_is_bold_and_the_chosen_one_marked(tmp_path: Path) -> None:
    tables = all_tables(study_of(tmp_path, *runs()), percent=False)
    [scores], [costs] = tables["Results"], tables["Costs"]
    assert list(scores.frame) == ["layer", "n", "dev accuracy", "test accuracy"]
    assert rows(scores) == [
        ["zero-shot", "–", "0.600", "0.620"],
        ["majority class", "–", "0.500", "0.510"],
        ["2", "3", "0.700 ± 0.000", "0.711 ± 0.001"],
        ["3†", "3", "0.820 ± 0.000", "0.761 ± 0.001"],
        ["4", "3", "0.790 ± 0.000", "0.811 ± 0.001"],
    ]
    assert scores.best == {(3, 2), (4, 3)}
    assert scores.chosen == 3
    assert r"\begin{table}" in to_latex(scores, [])
    assert r"\begin{table*}" in to_latex(costs, [])  # of several columns of words
    assert rows(costs)[1][:2] == ["3†", "30.0"]


def test_tasks_beside_each_other_in_percent(tmp_path: Path) -> None:
    study = study_of(tmp_path, *runs(), *runs(task="rte"))
    table = all_tables(study, percent=True)["Results"][0]
    assert list(table.frame) == ["layer", "rte [accuracy]", "sst2 [accuracy]", "average"]
    assert rows(table)[0] == ["zero-shot", "62.0", "62.0", "62.0"]
    assert rows(table)[3] == ["3†", "76.1 ± 0.1†", "76.1 ± 0.1†", "76.1†"]
    assert table.best == {(4, 1), (4, 2), (4, 3)}
    assert table.caption == "Scores on test by task and setting, mean over 3 seeds"


def test_methods_have_their_names_in_latex(tmp_path: Path) -> None:
    lora = {"prompt": None, "method": {"name": "lora", "layer": 4, "lr": 1e-3}, "optim__lr": 1e-3}
    [table] = all_tables(study_of(tmp_path, {}, lora | {"dev": 0.9}), percent=False)["Results"]
    text = to_latex(table, [])
    assert r"LoRA\rlap{$^\dagger$} & 1 & \textbf{0.900}" in text
    assert r"NPG & 1 & 0.800" in text
    assert (
        r"\caption{Results on sst2. Bold: best of its column. $^\dagger$: chosen on dev.}" in text
    )


def test_baselines_that_differ_are_columns(tmp_path: Path) -> None:
    layers = [{"prompt__layer": n, "zero_shot": {"test": {"accuracy": n / 10}}} for n in (2, 4)]
    [table] = all_tables(study_of(tmp_path, *layers), percent=False)["Results"]
    assert table.frame["zero-shot"].tolist() == ["–", "0.200", "0.400"]
    assert rows(table)[0][0] == "majority class"


def test_an_interval_over_examples_stands_beside_that_over_seeds(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    gold = [str(label) for label in random.integers(2, size=200)]
    for layer, share in ((2, 0.7), (4, 0.9)):
        for seed in SEEDS:
            right = random.random(200) < share
            p = [0.8 if (g == "1") == r else 0.2 for g, r in zip(gold, right, strict=True)]
            where = tmp_path / f"{layer}-{seed}"
            write_predicted(where, gold, p, prompt__layer=layer, seed=seed)
    [table] = all_tables(study_of(tmp_path), percent=False)["Paired comparison"]
    low, high = map(_number, table.frame["95 % over examples"][0].split(" to "))
    difference = _number(table.frame["difference"][0])
    assert low < difference < high
    # Of two means over three runs: the standard error of independent rows.
    error = ((0.7 * 0.3 + 0.9 * 0.1) / 200 / 3) ** 0.5
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.25)


def _number(text: str) -> float:
    return float(text.replace("−", "-"))


def test_a_page_about_the_errors_of_the_chosen_setting(tmp_path: Path) -> None:
    gold = ["0", "1"] * 10
    for layer, sure in ((2, 0.6), (4, 0.9)):
        p = [sure if label == "1" else 1 - sure for label in gold]
        p[layer] = 0.9
        write_predicted(tmp_path / f"run{layer}", gold, p, prompt__layer=layer)
    page = write_report([tmp_path], tmp_path / "report").read_text()
    assert 'href="errors-sst2.html"' in page
    errors = (tmp_path / "report" / "errors-sst2.html").read_text()
    assert "layer 2 against layer 4" in errors
    assert "text 2" in errors


def test_without_predictions_there_is_no_such_page(tmp_path: Path) -> None:
    write_run(tmp_path / "run", metrics())
    assert main([str(tmp_path), "--percent"]) == 0
    assert list((tmp_path / "report").glob("errors*")) == []
    assert "75.0" in (tmp_path / "report" / "results-sst2.tex").read_text()


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_latex_sets_every_table_within_its_column(tmp_path: Path) -> None:
    """Of many tasks and settings, in pages of one and two columns."""
    tasks = ("sst2", "rte", "mrpc", "a_task_with_a_long_name & 50 %", "qnli", "cola")
    long = "A template of some length: {text} It was <mask> ."
    variants = [{"task": task, **more} for task in tasks for more in ({}, {"task__template": long})]
    study = study_of(tmp_path, *(one for variant in variants for one in runs(**variant)[::3]))
    tables = all_tables(study, percent=True)
    texts = [to_latex(t, []) for part in ("Results", "Costs") for t in tables[part]]
    texts += [to_latex(comparisons(study, study.tasks[0], percent=True), [])]
    packages = r"\usepackage[T1]{fontenc}\usepackage{booktabs,graphicx}"
    for columns in ("onecolumn", "twocolumn"):
        head = rf"\documentclass[{columns}]{{article}}{packages}\begin{{document}}"
        content = "\n\\clearpage\n".join(texts)
        (tmp_path / "paper.tex").write_text(f"{head}\n{content}\n\\end{{document}}\n")
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
        run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stdout[-2000:]
        assert re.findall(r"Overfull .*", run.stdout) == []
