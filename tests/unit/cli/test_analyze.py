"""lpt-analyze: the page about one run or two, and what is refused."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path

import pytest

from lpt.cli.analyze import main
from tests.support.analyzed import write_predicted
from tests.support.runs import metrics, write_run

GOLD = ["0", "1"] * 10
# Right but for rows 3 (sure) and 4 (less so); the second run is also wrong at 5, but right at 3.
FIRST = [0.1, 0.9] * 10
FIRST[3], FIRST[4] = 0.02, 0.7
SECOND = [0.2, 0.8] * 10
SECOND[4], SECOND[5] = 0.9, 0.4
NO_PROMPTS = "--no-prompts"


def shown(page: Path) -> str:
    """What a page shows, on one line."""
    content = re.sub(r"<style>.*?</style>", "", page.read_text(), flags=re.DOTALL)
    return " ".join(unescape(re.sub("<[^>]*>", " ", content)).split())


def test_one_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = [f"<b>text</b> {i} ± 1" for i in range(20)]
    run = write_predicted(tmp_path / "run", GOLD, FIRST, hostile)
    assert main([str(run), NO_PROMPTS]) == 0
    said, page = capsys.readouterr().out.splitlines()
    # Bins: 0.9 (18 of 18 right), 0.98 (wrong), 0.7 (wrong).
    error = (18 * 0.1 + 0.98 + 0.7) / 20
    assert said == (
        "run on 20 test examples: accuracy 0.900; mean confidence 0.894, "
        f"calibration error {error:.3f}."
    )
    assert page == str(run / "analysis" / "index.html")
    text = shown(Path(page))
    assert "label gold predicted precision recall F1 0 10 10 0.900 0.900 0.900" in text
    assert "Most confident errors (2 in all)" in text
    errors = text[text.index("row gold prediction") :]
    assert errors.index("3 1 0 0.980 <b>text</b> 3") < errors.index("4 0 1 0.700 <b>text</b> 4")
    names = {f"{kind}-run.{suffix}" for kind in ("confusion", "reliability") for suffix in SUFFIXES}
    assert {path.name for path in Path(page).parent.iterdir()} == {"index.html", *names}
    assert "<b>text" not in Path(page).read_text()


SUFFIXES = ("png", "pdf", "svg")


def test_two_runs_on_the_same_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = write_predicted(tmp_path / "a" / "run", GOLD, FIRST)
    second = write_predicted(tmp_path / "b" / "run", GOLD, SECOND)
    out = tmp_path / "out"
    assert main([str(first), str(second), NO_PROMPTS, "--out", str(out)]) == 0
    capsys.readouterr()
    text = shown(out / "index.html")
    # One row each is right in one run only: p = 1.
    assert "accuracy 0.900 0.900 +0.000 −0.150 to +0.150 1.000" in text
    assert "run: right 17 1 wrong 1 1" in text
    assert "5 1 0 text 5" in text
    assert not (first / "analysis").exists()


def test_other_rows_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = write_predicted(tmp_path / "first", GOLD, FIRST)
    fewer = write_predicted(tmp_path / "fewer", GOLD[:10], FIRST[:10])
    texts = write_predicted(tmp_path / "texts", GOLD, FIRST, ["other"] * 20)
    task = write_predicted(tmp_path / "task", GOLD, FIRST, task="rte")
    labels = write_predicted(tmp_path / "labels", GOLD, FIRST, task__labels=["1", "0"])
    for other, said in (
        (labels, "the labels 1, 0, not 0, 1"),
        (fewer, "10 examples, 10 of them the same rows"),
        (texts, "other values of text in the same rows"),
        (task, "predictions for rte, not sst2"),
    ):
        assert main([str(first), str(other), NO_PROMPTS]) == 2
        assert said in capsys.readouterr().err
    assert not (first / "analysis").exists()


def test_what_cannot_be_analyzed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All problems at once."""
    bare = write_run(tmp_path / "bare", metrics())
    unlabeled = write_run(tmp_path / "unlabeled", metrics(test=None))
    (unlabeled / "predictions.tsv").write_text("index\tprediction\n0\t1\n")
    old = write_run(tmp_path / "old", metrics())
    (old / "predictions.tsv").write_text("index\tprediction\tlabel\n0\t1\t1\n")
    assert main([str(bare), str(unlabeled)]) == 2
    said = capsys.readouterr().err
    assert "bare/predictions.tsv: cannot be read" in said
    assert "unlabeled/predictions.tsv: no labels" in said
    assert main([str(old)]) == 2
    assert "no columns p(0), p(1)" in capsys.readouterr().err
    run = write_predicted(tmp_path / "run", GOLD, FIRST)
    assert main([str(run), "--set", "tset"]) == 2
    assert "--set: tset" in capsys.readouterr().err
    assert main([str(run), NO_PROMPTS, "--out", str(run / "metrics.json")]) == 1
    assert f"{run / 'metrics.json'}: File exists" in capsys.readouterr().err
    sound = (run / "predictions.tsv").read_text()
    for text, damaged, said in (
        ("0.980000", "much", "could not convert string to float: 'much'"),
        ("0.980000", "nan", "numbers that are not finite"),
        ("\n0\t0", "\n0\t7", "other labels than those of the task: 7"),
    ):
        (run / "predictions.tsv").write_text(sound.replace(text, damaged))
        assert main([str(run), NO_PROMPTS]) == 2
        assert said in capsys.readouterr().err
    assert main([str(tmp_path)]) == 2
    assert "metrics.json" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([str(old)] * 3)


def test_multiple_choice_and_regression(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    choice = write_run(tmp_path / "choice", metrics(task__task_type="multiple_choice"))
    lines = ["index\tgroup\tprediction\tlabel\tp(0)\tp(1)\ttext"]
    for row in range(12):
        group, chosen = row // 2, str(row % 2)
        gold = str(row % 2) if group else str(1 - row % 2)
        lines.append(f"{row}\t{group}\t{chosen}\t{gold}\t0.4\t0.6\tcandidate {row}")
    (choice / "predictions.tsv").write_text("\n".join(lines) + "\n")
    assert main([str(choice), str(choice), NO_PROMPTS, "--out", str(tmp_path / "out")]) == 0
    text = shown(tmp_path / "out" / "index.html")
    assert "Most confident errors (1 in all)" in text
    assert "accuracy 0.833 0.833 +0.000" in text
    numbers = {"task__task_type": "regression", "task__labels": ["0", "5"]}
    run = write_run(tmp_path / "number", metrics(**numbers, selection__metric="pearson"))
    lines = ["index\tprediction\tlabel\ttext", "0\t1.0\t4.5\tfar off", "1\t2.0\t2.0\tnear"]
    (run / "predictions.tsv").write_text("\n".join([*lines, "2\t3.0\t3.5\tso so"]) + "\n")
    assert main([str(run), NO_PROMPTS]) == 0
    assert "0 4.5 1.0 3.500 far off" in shown(run / "analysis" / "index.html")
