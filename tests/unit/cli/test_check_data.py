"""lpt-data check: the model input of each task, and what is wrong with its data."""

from __future__ import annotations

from pathlib import Path

import pytest

from lpt.cli.data import main

Capture = pytest.CaptureFixture[str]


def check(root: Path, checkpoints: dict[str, Path], *overrides: str, kind: str = "masked") -> int:
    """Run `check` on MR's folder; words are tokens of the tiny models."""
    model = ["model=local", f"model.path={checkpoints[kind]}", "data.max_length=64"]
    task = ["task=mr", f"data.root={root}", "task.label_words=[bad,good]"]
    given = {override.partition("=")[0] for override in overrides}
    defaults = [o for o in (*model, *task) if o.partition("=")[0] not in given]
    return main(["check", *defaults, *overrides])


@pytest.mark.parametrize("kind", ["masked", "causal"])
def test_check_shows_the_model_input(
    root: Path, checkpoints: dict[str, Path], capsys: Capture, kind: str
) -> None:
    assert check(root, checkpoints, kind=kind) == 0
    output = capsys.readouterr().out
    for part in ("mr · ", "accuracy", "label words", "'bad'", "'good'", "truncated", "80"):
        assert part in output
    assert ("<mask>" in output) == (kind == "masked")
    assert "Ready: 1. With problems: 0." in output
    check(root, checkpoints, "data.max_length=9" if kind == "masked" else "data.max_length=12")
    [train] = [line for line in capsys.readouterr().out.splitlines() if " train " in line]
    assert ("80 (100.0 %)" in train) == (kind == "masked")


def test_check_continues_after_a_faulty_task(
    root: Path, checkpoints: dict[str, Path], capsys: Capture
) -> None:
    (root / "mr" / "train.tsv").write_text("2\tthe film\n0\tbad\n")
    assert check(root, checkpoints, "task=mr,stsb") == 1
    output = capsys.readouterr().out
    assert "mr: problems" in output
    assert "train.tsv:1" in output.replace("\n", "").replace("│", "").replace(" ", "")
    assert "stsb · " in output
    assert "Ready: 1. With problems: 1." in output


def test_all_tasks_with_data(root: Path, checkpoints: dict[str, Path], capsys: Capture) -> None:
    assert check(root, checkpoints, "task=all") == 0
    output = " ".join(capsys.readouterr().out.split())
    assert "Ready: 2. With problems: 0." in output
    assert "boolq" in output.partition("Not under")[2]


@pytest.mark.parametrize("text", ["[/bold]", "a.tsv:100: x"])
def test_any_text_is_shown_literally(
    root: Path,
    checkpoints: dict[str, Path],
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    name, template = f"model.name='{text}'", f"task.template='{text} {{text}} <mask>'"
    assert check(root, checkpoints, name, template) == 0
    output = capsys.readouterr().out
    assert f"mr · {text} · " in output
    assert f"{text} {{text}} <mask>" in output
    assert check(root, checkpoints, name, f"task.name='{text}'") == 1
    assert f"{text}: problems" in capsys.readouterr().out
